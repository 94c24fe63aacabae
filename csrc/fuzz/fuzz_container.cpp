// SPDX-License-Identifier: Apache-2.0
// Any bytes are either a sound `.cvimodel` container, or end in an error.
#include <cstdint>
#include <vector>

#include "cvi/cvimodel.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::vector<uint8_t> copy(data, data + size);
    gadl::cvi::read_container(copy.data(), copy.size());
  } catch (const gadl::cvi::ContainerError&) {
  }
  return 0;
}
