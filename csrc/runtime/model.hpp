// SPDX-License-Identifier: Apache-2.0
// A loaded artefact: everything checked, kernels prepared. It points into the file's bytes, which must outlive it.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
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

// A device program, the driver that accepts it, and what it needs.
struct DevicePart {
  Bytes program;
  const gadl_driver* driver = nullptr;
  uint32_t inputs = 0;
  std::vector<uint64_t> sizes;  // in bytes: inputs, then outputs
  uint64_t memory_bytes = 0;
};

struct LoadedModel {
  std::vector<Tensor> tensors;
  std::vector<std::pair<std::string, uint32_t>> inputs, outputs;
  std::vector<Step> steps;
  std::vector<DevicePart> parts;
  Bytes weights;
  uint64_t arena_bytes = 0, scratch_bytes = 0, device_bytes = 0;
};

// The file is made by a newer compiler.
class VersionError : public ModelError {
 public:
  using ModelError::ModelError;
};

enum class Devices { ALLOWED, NONE };
// Throws ModelError (not a sound artefact), VersionError. `data` must be aligned to 8 bytes. With Devices::NONE a file that
// has device programs is refused.
LoadedModel load_model(const uint8_t* data, uint64_t size, Devices devices = Devices::ALLOWED);

}  // namespace gadl
