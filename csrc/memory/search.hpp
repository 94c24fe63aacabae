// SPDX-License-Identifier: Apache-2.0
// Exact search for static memory allocation.
//
// After the ideas of MiniMalloc (Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine
// Learning", ASPLOS 2023): solutions in which every buffer rests on another one, a lower bound for every set of buffers
// that live at once, no solution in which a buffer could drop, independent parts searched apart.
#pragma once

#include <cstdint>
#include <vector>

namespace gadl::memory {

// Lives in [start, end), takes `size` > 0 at a multiple of `alignment` > 0.
struct Item {
  int64_t start, end, size, alignment;
};

enum class Outcome {
  found,    // offsets hold a solution
  none,     // no solution exists
  stopped,  // the steps ran out
};

struct Result {
  Outcome outcome;
  int64_t steps;                 // buffers looked at
  std::vector<int64_t> offsets;  // one per item when found, else empty
};

// Offsets in [0, capacity) such that no two items that live at once overlap. Looks at about `steps` buffers at most, some
// nanoseconds each; the result depends on nothing else.
Result search(const std::vector<Item>& items, int64_t capacity, int64_t steps);

}  // namespace gadl::memory
