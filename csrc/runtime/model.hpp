// SPDX-License-Identifier: Apache-2.0
// A loaded artefact: everything checked, kernels prepared.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "gadl/driver.h"
#include "kernel.hpp"

namespace gadl {

struct Tensor {
  TensorInfo info;
  gadl_storage storage = GADL_STORAGE_ARENA;
  uint64_t offset = 0;
};

struct Step {
  bool is_segment = false;
  uint32_t segment = 0;
  std::string name, result;
  std::vector<uint32_t> operands, results;
  Prepared kernel;
};

struct Bytes {
  const uint8_t* data = nullptr;
  uint64_t size = 0;
};

struct LoadedModel {
  std::vector<Tensor> tensors;
  std::vector<std::pair<std::string, uint32_t>> inputs, outputs;
  std::vector<Step> steps;
  std::vector<Bytes> programs;
  Bytes weights;
  uint64_t arena_bytes = 0, scratch_bytes = 0;
};

// Throws ModelError (format), VersionError (too new).
class VersionError : public ModelError {
 public:
  using ModelError::ModelError;
};
LoadedModel load_model(const uint8_t* data, uint64_t size);

}  // namespace gadl
