// SPDX-License-Identifier: Apache-2.0
// A program container, checked and decoded.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "machine.hpp"

namespace gadl::npu {

constexpr int kRegions = 8;

struct Semaphore {
  uint8_t index = 0, count = 0;
};

struct Instr {
  Op op{};
  Queue queue{};
  std::array<Semaphore, kMostWaits> waits{};
  std::array<Semaphore, kMostPosts> posts{};
  uint32_t debug = 0;
  uint32_t bytes = 0;
  std::array<int64_t, kMostFields> f{};
};

struct Binding {
  uint32_t region = 0;
  uint64_t offset = 0, size = 0;
};

struct Program {
  Machine machine;
  std::vector<std::vector<Instr>> cores;
  const uint8_t* constants = nullptr;
  uint64_t constants_size = 0;
  std::array<uint64_t, kRegions> region_sizes{};
  std::vector<Binding> inputs, outputs;
};

// Parses a container; throws SimError on anything that is not right. The bytes must outlive the program (constants).
Program parse_program(const uint8_t* data, uint64_t size);
const OpInfo* find_op(Op op);

}  // namespace gadl::npu
