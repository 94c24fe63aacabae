// SPDX-License-Identifier: Apache-2.0
// The race detector: vector clocks along semaphore chains, access history per byte range.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core.hpp"

namespace gadl::npu {

constexpr int kQueuesPerCore = 7;
constexpr int kMostQueues = 8 * kQueuesPerCore;

// Newest instruction (index + 1) of each queue that is known to be complete.
using Clock = std::array<uint32_t, kMostQueues>;

inline void merge(Clock& into, const Clock& from) {
  for (int i = 0; i < kMostQueues; ++i) into[i] = std::max(into[i], from[i]);
}

// One memory: for disjoint ranges, the last writer and the last reader of each queue since then.
class History {
 public:
  struct Conflict {
    bool found = false;
    int queue = 0;
    uint32_t index = 0;  // instruction index + 1
    bool was_write = false;
  };
  // Records an access by instruction `index` (+1) of `queue` and returns the first earlier access that `known` does not order.
  Conflict access(int64_t begin, int64_t end, bool write, int queue, uint32_t index, const Clock& known);

 private:
  struct State {
    int64_t end = 0;
    int write_queue = -1;
    uint32_t write_index = 0;
    std::vector<std::pair<int, uint32_t>> readers;
  };
  std::map<int64_t, State>::iterator split(int64_t at);
  std::map<int64_t, State> ranges_;
};

}  // namespace gadl::npu
