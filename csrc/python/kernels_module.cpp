// SPDX-License-Identifier: Apache-2.0
// Python binding of single host kernels, for tests against the op declarations.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "kernel.hpp"

namespace py = pybind11;
using namespace gadl;

namespace {

// Bytes behind every buffer that a kernel writes, to catch stores past its end.
constexpr std::size_t kGuardBytes = 64;
constexpr uint8_t kGuard = 0xA5;

using Buffer = std::vector<uint8_t>;

Buffer guarded(std::size_t bytes) { return Buffer(bytes + kGuardBytes, kGuard); }

void check_guard(const Buffer& buffer, const char* what) {
  for (std::size_t i = buffer.size() - kGuardBytes; i < buffer.size(); ++i)
    if (buffer[i] != kGuard) throw std::runtime_error(std::string("the kernel wrote past its ") + what);
}

// (dtype, layout, dims, scales, zero point, axis)
TensorInfo tensor_of(const py::tuple& t) {
  TensorInfo info;
  info.dtype = static_cast<gadl_dtype>(py::cast<int>(t[0]));
  info.layout = static_cast<gadl_layout>(py::cast<int>(t[1]));
  info.dims = py::cast<std::vector<int64_t>>(t[2]);
  info.scales = py::cast<std::vector<double>>(t[3]);
  info.zero_point = py::cast<int32_t>(t[4]);
  info.axis = py::cast<int32_t>(t[5]);
  if (info.dims.size() > GADL_MOST_DIMS) throw py::value_error("too many dimensions");
  return info;
}

// (rounding code, multipliers, shifts)
Requant requant_of(const py::tuple& t) {
  Requant r;
  r.rounding = static_cast<npu::Round>(py::cast<int>(t[0]));
  r.multiplier = py::cast<std::vector<int32_t>>(t[1]);
  for (int s : py::cast<std::vector<int>>(t[2])) r.shift.push_back(static_cast<int8_t>(s));
  return r;
}

// (kind, value), the value as the artefact's attribute codes say; tensors are (dtype, bytes).
Attribute attribute_of(const std::string& name, const py::tuple& t) {
  Attribute a;
  a.name = name;
  a.kind = static_cast<gadl_attr>(py::cast<int>(t[0]));
  switch (a.kind) {
    case GADL_ATTR_INT: a.integer = py::cast<int64_t>(t[1]); break;
    case GADL_ATTR_FLOAT: a.real = py::cast<double>(t[1]); break;
    case GADL_ATTR_STR: a.text = py::cast<std::string>(t[1]); break;
    case GADL_ATTR_INTS: a.ints = py::cast<std::vector<int64_t>>(t[1]); break;
    case GADL_ATTR_FLOATS: a.reals = py::cast<std::vector<double>>(t[1]); break;
    case GADL_ATTR_TENSOR: {
      const auto pair = py::cast<py::tuple>(t[1]);
      const std::string bytes = py::cast<py::bytes>(pair[1]);
      a.dtype = static_cast<gadl_dtype>(py::cast<int>(pair[0]));
      a.bytes.assign(bytes.begin(), bytes.end());
      break;
    }
    case GADL_ATTR_REQUANTS:
      for (const auto& item : py::cast<py::list>(t[1])) a.requants.push_back(requant_of(py::cast<py::tuple>(item)));
      break;
  }
  return a;
}

py::list run_kernel(const std::string& op, const py::dict& attrs, const py::list& inputs, const py::list& results, int repeats) {
  std::vector<TensorInfo> in(inputs.size()), out(results.size());
  std::vector<Buffer> in_bytes(inputs.size()), out_bytes;
  std::vector<const uint8_t*> in_data(inputs.size(), nullptr);
  std::vector<uint8_t*> out_data;
  Call call;
  call.op = op;
  for (auto item : attrs) {
    const auto name = py::cast<std::string>(item.first);
    call.attrs.items.push_back(attribute_of(name, py::cast<py::tuple>(item.second)));
  }
  for (std::size_t i = 0; i < in.size(); ++i) {
    call.in.push_back(nullptr);
    if (inputs[i].is_none()) continue;
    const auto pair = py::cast<py::tuple>(inputs[i]);
    in[i] = tensor_of(py::cast<py::tuple>(pair[0]));
    const std::string bytes = py::cast<py::bytes>(pair[1]);
    if (static_cast<int64_t>(bytes.size()) != in[i].bytes()) throw py::value_error("an operand has a wrong number of bytes");
    in_bytes[i].assign(bytes.begin(), bytes.end());
    in_data[i] = in_bytes[i].data();
    call.in.back() = &in[i];
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = tensor_of(py::cast<py::tuple>(results[i]));
    out_bytes.push_back(guarded(static_cast<std::size_t>(out[i].bytes())));
    call.out.push_back(&out[i]);
  }
  for (Buffer& b : out_bytes) out_data.push_back(b.data());
  const Prepared prepared = prepare_kernel(call);
  Buffer scratch = guarded(prepared.scratch_bytes);
  {
    py::gil_scoped_release release;
    for (int i = 0; i < repeats; ++i) prepared.run(in_data.data(), out_data.data(), scratch.data());
  }
  check_guard(scratch, "scratch memory");
  py::list found;
  for (const Buffer& b : out_bytes) {
    check_guard(b, "result");
    found.append(py::bytes(reinterpret_cast<const char*>(b.data()), b.size() - kGuardBytes));
  }
  return found;
}

}  // namespace

PYBIND11_MODULE(_kernels, m) {
  m.doc() = "Single host kernels.";
  py::register_exception<ModelError>(m, "KernelError", PyExc_ValueError);
  m.def("run_kernel", &run_kernel, py::arg("op"), py::arg("attrs"), py::arg("inputs"), py::arg("results"), py::arg("repeats") = 1,
        "Run one kernel on raw tensors; returns the results' bytes. `repeats` runs it again, for timing.");
}
