// SPDX-License-Identifier: Apache-2.0
// Python binding of the simulator and its timing formulas, for the compiler.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>

#include "codec.hpp"
#include "error.hpp"
#include "formulas.hpp"
#include "simulator.hpp"

namespace py = pybind11;
using namespace gadl::npu;

namespace {

Machine make_machine(const std::vector<double>& values) {
  Machine machine;
  if (values.size() != machine.values.size()) throw py::value_error("a machine has " + std::to_string(machine.values.size()) + " parameters");
  std::copy(values.begin(), values.end(), machine.values.begin());
  return machine;
}

py::dict to_dict(const Report& report) {
  py::dict out;
  out["cycles"] = report.cycles;
  out["instructions"] = report.instructions;
  out["macs"] = report.macs;
  out["dram_read_bytes"] = report.dram_read_bytes;
  out["dram_write_bytes"] = report.dram_write_bytes;
  out["dram_burst_bytes"] = report.dram_burst_bytes;
  out["bound_cycles"] = report.bound_cycles;
  out["sram_peak_bytes"] = report.sram_peak_bytes;
  out["busy"] = report.busy;
  out["queue_bytes"] = report.queue_bytes;
  out["region_read_bytes"] = report.region_read_bytes;
  out["region_write_bytes"] = report.region_write_bytes;
  out["cycles_by_debug"] = report.cycles_by_debug;
  out["trace"] = py::array_t<TraceEvent>(static_cast<py::ssize_t>(report.trace.size()), report.trace.data());
  out["events_left_out"] = report.events_left_out;
  return out;
}

py::dict simulate(const py::bytes& container, py::dict regions, bool functional, bool races, bool trace, double least_cycles, size_t most_events) {
  const std::string_view bytes = container;
  Simulator simulator(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  for (auto item : regions) {
    auto array = py::cast<py::array>(item.second);
    if (!array.writeable() || !(array.flags() & py::array::c_style)) throw py::value_error("regions must be writeable and contiguous");
    simulator.bind_region(py::cast<int>(item.first), static_cast<uint8_t*>(array.mutable_data()), static_cast<uint64_t>(array.nbytes()));
  }
  Report report;
  {
    py::gil_scoped_release release;
    report = simulator.run({functional, races, trace, least_cycles, most_events});
  }
  return to_dict(report);
}

py::dict predict(const py::bytes& container, size_t most_events) {
  const std::string_view bytes = container;
  const Prediction found = Simulator(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()).predict(most_events);
  py::dict out;
  out["cycles"] = found.cycles;
  out["trace"] = py::array_t<TraceEvent>(static_cast<py::ssize_t>(found.trace.size()), found.trace.data());
  return out;
}

}  // namespace

PYBIND11_MODULE(_sim, m) {
  PYBIND11_NUMPY_DTYPE(TraceEvent, core, unit, op, instr, debug, bytes, macs, burst_bytes, fixed, alone, start, end);
  m.doc() = "The reference NPU's simulator and timing formulas.";
  py::register_exception<SimError>(m, "SimError");
  py::class_<Machine>(m, "Machine").def(py::init(&make_machine), py::arg("values"));
  m.def("conv_cycles", py::vectorize([](const Machine* machine, int64_t pixels, int64_t oc, int64_t ic, int64_t kh, int64_t kw, int type) {
          return conv_cycles(*machine, pixels, oc, ic, kh, kw, static_cast<Type>(type));
        }),
        "Occupancy of the array, cycles (arrays broadcast).");
  m.def("depthwise_cycles", py::vectorize([](const Machine* machine, int64_t pixels, int64_t channels, int64_t taps, int type) {
          return depthwise_cycles(*machine, pixels, channels, taps, static_cast<Type>(type));
        }));
  m.def("drain_cycles", py::vectorize([](const Machine* machine, int64_t outputs) { return drain_cycles(*machine, outputs); }));
  m.def("vector_cycles", py::vectorize([](const Machine* machine, int64_t operations, int64_t bytes) { return vector_cycles(*machine, operations, bytes); }));
  m.def("dma_cycles", py::vectorize([](const Machine* machine, int64_t rows, int64_t row_bytes, int active, bool store) {
          const double bytes = static_cast<double>(burst_bytes(*machine, rows, row_bytes, 0));
          return dma_fixed_cycles(*machine, static_cast<int64_t>(bytes) / machine->integer(Parameter::dram_page_bytes), store) + bytes / dma_share(*machine, active, store);
        }),
        "Cycles of one transfer of aligned rows.");
  m.def("burst_bytes", py::vectorize([](const Machine* machine, int64_t rows, int64_t row_bytes) { return burst_bytes(*machine, rows, row_bytes, 0); }));
  m.def("encode_zb1", [](const py::bytes& data) {
          const std::string_view bytes = data;
          std::vector<uint8_t> out;
          encode_zb1(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int64_t>(bytes.size()), out);
          return py::bytes(reinterpret_cast<const char*>(out.data()), out.size());
        }, py::arg("data"), "The zb1 stream of some bytes.");
  m.def("zb1_bytes", [](const py::bytes& data) {
          const std::string_view bytes = data;
          return zb1_bytes(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int64_t>(bytes.size()));
        }, py::arg("data"), "Bytes of the zb1 stream of some bytes.");
  m.def("least_zb1_bits", [](const py::bytes& data) {
          const std::string_view bytes = data;
          return least_zb1_bits(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int64_t>(bytes.size()));
        }, py::arg("data"), "Bits below which no zb1 streams and raw parts hold some bytes in this order.");
  m.def("predict", &predict, py::arg("container"), py::arg("most_events") = size_t{1} << 20,
        "Cycles of a program by the analytic model, and a `trace` like that of `simulate`; raises SimError.");
  m.def("simulate", &simulate, py::arg("container"), py::arg("regions"), py::arg("functional") = true, py::arg("races") = true,
        py::arg("trace") = false, py::arg("least_cycles") = 0.0, py::arg("most_events") = size_t{1} << 20,
        "Runs a program on the given memory (region number to array); raises SimError. `trace`: a record array, one row per instruction executed.");
}
