// SPDX-License-Identifier: Apache-2.0
// Python binding of the search for offsets in memory.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "search.hpp"

namespace py = pybind11;
using namespace gadl::memory;

namespace {

py::tuple solve(const std::vector<std::array<int64_t, 4>>& rows, int64_t capacity, int64_t steps) {
  std::vector<Item> items;
  for (const auto& [start, end, size, alignment] : rows) {
    if (start >= end || size <= 0 || alignment <= 0) throw py::value_error("an item has a lifetime, a size and an alignment above 0");
    items.push_back({start, end, size, alignment});
  }
  Result result;
  {
    py::gil_scoped_release release;
    result = search(items, capacity, steps);
  }
  return py::make_tuple(result.outcome != Outcome::stopped, result.steps,
                        result.outcome == Outcome::found ? py::cast(result.offsets) : py::object(py::none()));
}

}  // namespace

PYBIND11_MODULE(_search, m) {
  m.def("search", &solve, py::arg("rows"), py::arg("capacity"), py::arg("steps"),
        "Rows of start, end, size, alignment: whether it is decided, steps, offsets or None; ValueError for a wrong row.");
}
