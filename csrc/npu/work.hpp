// SPDX-License-Identifier: Apache-2.0
// What the timing model needs to know about an instruction: costs and accesses, computed once.
#pragma once
#include <cstdint>
#include <vector>

#include "core.hpp"
#include "formulas.hpp"
#include "program.hpp"

namespace gadl::npu {

// Units that execute. The drain shares the MMA queue with the array and works beside it.
enum Unit : uint8_t { kCtl, kLd0, kLd1, kLd2, kSt, kArray, kVec, kDrain, kUnits };

struct Demand {
  int group;     // bank group
  double bytes;  // per unit of work
};

struct Work {
  Unit unit = kCtl;
  bool marker = false;  // takes no time: WAIT POST PROF BAR
  bool dma = false, store = false, multicast = false, computed = false;
  double fixed = 0;          // cycles before the work starts
  double work = 0;           // cycles at full speed, or bytes of bursts for DMA
  double issue = 0;          // launch cycles, hidden where the instruction was fetched earlier
  double last_fold = 0;      // systolic with shadow loading: cycles of the last fold
  double heaviest = 0;       // most bytes per unit of work on one bank group
  uint64_t macs = 0;
  uint64_t dram_read = 0, dram_written = 0;  // bytes, of one region
  uint8_t region = 0;
  int64_t sram_end = 0;      // one past the last byte that it writes there
  double mac_cycles = 0;     // no machine of this shape is faster
  double vector_cycles = 0;
  std::vector<Demand> demand;
  std::vector<Access> accesses;
};

// True when two instructions touch the same bytes, one of them writing.
bool conflict(const Work& one, const Work& other);

// Fills `work` (its vectors are reused); throws SimError when the instruction leaves the memories.
void make_work(const Instr& instr, const Machine& machine, const Extents& extents, Work& work);

}  // namespace gadl::npu
