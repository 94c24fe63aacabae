// SPDX-License-Identifier: Apache-2.0
// Python binding of the runtime: a thin cover over gadl.hpp.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "gadl/driver.h"
#include "gadl/gadl.hpp"

namespace py = pybind11;

namespace {

constexpr const char* kTypes[] = {"f32", "f16", "bf16", "f64", "i8", "u8", "i16", "i32", "i64", "bool"};

py::dict describe(const gadl_tensor_info& info) {
  py::dict out;
  out["name"] = info.name;
  out["dtype"] = kTypes[info.dtype];
  out["shape"] = py::tuple(py::cast(std::vector<int64_t>(info.dims, info.dims + info.rank)));
  out["channels_last"] = info.layout == GADL_LAYOUT_CHANNELS_LAST;
  out["scales"] = std::vector<double>(info.scales, info.scales + info.scale_count);
  out["zero_point"] = info.zero_point;
  out["size_bytes"] = info.size_bytes;
  return out;
}

py::list describe_all(const gadl::Model& model, uint32_t count, gadl_tensor_info (gadl::Model::*info)(uint32_t) const) {
  py::list out;
  for (uint32_t i = 0; i < count; ++i) out.append(describe((model.*info)(i)));
  return out;
}

py::bytes bytes_of(const void* data, uint64_t size) { return py::bytes(static_cast<const char*>(data), size); }

class RunContext {
 public:
  RunContext(std::shared_ptr<gadl::Model> model, bool skip_checks, const std::optional<std::string>& driver)
      : model_(std::move(model)), context_(*model_, skip_checks, driver ? driver->c_str() : nullptr) {}

  void set_input(uint32_t index, const py::buffer& data) {
    const py::buffer_info info = data.request();
    const uint64_t size = model_->input(index).size_bytes;
    if (static_cast<uint64_t>(info.size * info.itemsize) != size || !PyBuffer_IsContiguous(info.view(), 'C')) throw py::value_error("the input must be contiguous and of the model's size");
    std::memcpy(context_.input(index), info.ptr, size);
  }
  void run() {
    py::gil_scoped_release release;
    context_.run();
  }
  py::bytes output(uint32_t index) const { return bytes_of(context_.output(index), model_->output(index).size_bytes); }
  py::bytes tensor(uint32_t index) const { return bytes_of(context_.tensor(index), model_->tensor(index).size_bytes); }
  py::dict counters() const {
    const gadl_counters c = context_.counters();
    py::dict out;
    out["cycles"] = c.cycles;
    out["dram_read_bytes"] = c.dram_read_bytes;
    out["dram_write_bytes"] = c.dram_write_bytes;
    out["macs"] = c.macs;
    return out;
  }
  py::list steps() const {
    py::list out;
    for (uint32_t i = 0; i < context_.step_count(); ++i) {
      const gadl_step_info step = context_.step(i);
      out.append(py::make_tuple(step.name, step.result, step.time_ns));
    }
    return out;
  }

 private:
  std::shared_ptr<gadl::Model> model_;
  gadl::Context context_;
};

// `RuntimeFailure(text)` with the status of gadl.h as `status`.
void register_failure(py::module_& m) {
  static const py::handle failure = py::exception<gadl::Error>(m, "RuntimeFailure", PyExc_RuntimeError).release();
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const gadl::Error& e) {
      // A text may be cut off inside a character.
      const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(e.what(), static_cast<py::ssize_t>(std::strlen(e.what())), "replace"));
      py::object value = failure(text);
      value.attr("status") = static_cast<int>(e.status());
      PyErr_SetObject(failure.ptr(), value.ptr());
    }
  });
  m.attr("ERROR_FORMAT") = static_cast<int>(GADL_ERROR_FORMAT);
  m.attr("ERROR_VERSION") = static_cast<int>(GADL_ERROR_VERSION);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The OpenGADL runtime.";
  register_failure(m);
  m.def("version", &gadl_version);
  m.def("has_driver", [](const std::string& name) { return gadl_find_driver(name.c_str()) != nullptr; });
  py::class_<gadl::Model, std::shared_ptr<gadl::Model>>(m, "Model")
      .def(py::init<const std::string&>())
      .def("inputs", [](const gadl::Model& m) { return describe_all(m, m.input_count(), &gadl::Model::input); })
      .def("outputs", [](const gadl::Model& m) { return describe_all(m, m.output_count(), &gadl::Model::output); })
      .def("tensors", [](const gadl::Model& m) { return describe_all(m, m.tensor_count(), &gadl::Model::tensor); })
      .def("context_bytes", [](const gadl::Model& model) { return model.context_bytes(); });
  py::class_<RunContext>(m, "Context")
      .def(py::init<std::shared_ptr<gadl::Model>, bool, const std::optional<std::string>&>(), py::arg("model"), py::arg("skip_checks") = false,
           py::arg("driver") = py::none(), py::call_guard<py::gil_scoped_release>())
      .def("set_input", &RunContext::set_input)
      .def("run", &RunContext::run)
      .def("output", &RunContext::output)
      .def("tensor", &RunContext::tensor)
      .def("counters", &RunContext::counters)
      .def("steps", &RunContext::steps);
}
