// SPDX-License-Identifier: Apache-2.0
// Expands loops and address registers into the instructions that the queues receive.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "program.hpp"

namespace gadl::npu {

constexpr uint32_t kNoValues = UINT32_MAX;

// One dynamic instruction.
struct Item {
  uint32_t instr = 0;           // index into the code
  uint32_t values = kNoValues;  // first resolved address, where the instruction names address registers
  uint32_t fence = 0;           // barriers and host calls dispatched before it: it waits for them
  uint32_t words = 0;           // fetched up to and including it, of 8 bytes
};

struct Sequence {
  std::vector<Item> items;
  std::vector<int64_t> values;
  std::array<std::vector<uint32_t>, 7> queues;  // item numbers in order
};

// Throws SimError on bad nesting and on more than `limit` dynamic instructions.
Sequence sequence(const std::vector<Instr>& code, std::size_t limit);

// The instruction of an item, addresses resolved.
Instr resolve(const std::vector<Instr>& code, const Sequence& sequence, const Item& item);

}  // namespace gadl::npu
