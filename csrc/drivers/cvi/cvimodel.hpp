// SPDX-License-Identifier: Apache-2.0
// What a driver needs to know of a `.cvimodel` container, read with every offset checked: the bytes may be anything.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace gadl::cvi {

struct ContainerError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Tensor {
  std::string name;
  int format = 0;  // CVI_FMT_…
  uint64_t count = 0;
  uint64_t size_bytes = 0;
};

struct Container {
  std::string chip;
  std::vector<Tensor> inputs, outputs;
  uint64_t memory_bytes = 0;  // sections, scratch memories, inputs and outputs
};

bool has_magic(const void* data, uint64_t size);
// The first program of the container; `ContainerError` says what is wrong with it.
Container read_container(const uint8_t* data, uint64_t size);

}  // namespace gadl::cvi
