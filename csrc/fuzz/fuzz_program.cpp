// SPDX-License-Identifier: Apache-2.0
// Any bytes either run on the simulator, or end in an error.
#include <cstdint>
#include <vector>

#include "error.hpp"
#include "simulator.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gadl::npu;
  try {
    const std::vector<uint8_t> copy(data, data + size);
    Simulator simulator(copy.data(), copy.size());
    std::vector<std::vector<uint8_t>> regions(kRegions);
    for (int i = 1; i < kRegions; ++i) {
      if (simulator.program().region_sizes[i] > (1u << 24)) return 0;
      regions[i].resize(simulator.program().region_sizes[i]);
      simulator.bind_region(i, regions[i].data(), regions[i].size());
    }
    try {
      simulator.predict(1u << 16);
    } catch (const SimError&) {
    }
    simulator.run({});
  } catch (const SimError&) {
  }
  return 0;
}
