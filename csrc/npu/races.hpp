// SPDX-License-Identifier: Apache-2.0
// The race detector: vector clocks along semaphore chains, live accesses per page of memory.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "core.hpp"

namespace gadl::npu {

constexpr int kQueuesPerCore = 7;
constexpr int kMostCores = 8;
constexpr int kMostQueues = kMostCores * kQueuesPerCore;

// Newest instruction (counted from 1 in its queue) of each queue that is known to be complete.
using Clock = std::array<uint32_t, kMostQueues>;

inline void merge(Clock& into, const Clock& from) {
  for (int i = 0; i < kMostQueues; ++i) into[i] = std::max(into[i], from[i]);
}

// True when the two sets of rows share a byte.
bool intersects(const Access& a, const Access& b);

// The accesses to one memory that a later access may still race with.
//
// An access is dropped when a later one that is ordered after it covers it and conflicts with everything that it conflicts
// with: whatever races with the dropped one then races with the later one, or is ordered after both.
class History {
 public:
  struct Live {
    int64_t begin, end;
    uint64_t shape;  // hash of the rows; equal ranges and shapes are equal footprints
    uint32_t position;
    uint8_t queue, ordinal;
    bool write;
  };

  explicit History(int64_t size);

  // Calls `conflict(live)` for each live access that overlaps the hull of `access`, is not ordered before it by `known`, and
  // one of both writes. Then records `access`, made by the instruction at `position` (from 1) of `queue`.
  template <class Conflict>
  void access(const Access& access, int queue, uint32_t position, int ordinal, const Clock& known, Conflict&& conflict);

 private:
  static uint64_t shape_of(const Access& access);

  int shift_ = 0;
  std::vector<std::vector<Live>> pages_;
};

template <class Conflict>
void History::access(const Access& access, int queue, uint32_t position, int ordinal, const Clock& known, Conflict&& conflict) {
  const Live mine{access.begin, access.end, shape_of(access), position, static_cast<uint8_t>(queue), static_cast<uint8_t>(ordinal), access.write};
  const bool dense = access.dense();
  const size_t last = std::min(pages_.size() - 1, static_cast<size_t>((access.end - 1) >> shift_));
  for (size_t page = static_cast<size_t>(access.begin >> shift_); page <= last; ++page) {
    const int64_t page_begin = static_cast<int64_t>(page) << shift_, page_end = page_begin + (int64_t{1} << shift_);
    auto& live = pages_[page];
    size_t kept = 0;
    for (const Live& other : live) {
      bool keep = true;
      if (other.begin < access.end && access.begin < other.end) {
        const bool ordered = other.queue == queue || known[other.queue] >= other.position;
        if (!ordered && (access.write || other.write)) conflict(other);
        const bool covers = dense ? access.begin <= std::max(other.begin, page_begin) && access.end >= std::min(other.end, page_end)
                                  : other.begin == access.begin && other.end == access.end && other.shape == mine.shape;
        keep = !(ordered && covers && (access.write || !other.write));
      }
      if (keep) live[kept++] = other;
    }
    live.resize(kept, mine);
    live.push_back(mine);
  }
}

}  // namespace gadl::npu
