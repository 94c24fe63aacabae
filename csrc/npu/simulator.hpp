// SPDX-License-Identifier: Apache-2.0
// The simulator: bit-exact function, event-driven timing, race and deadlock detection.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core.hpp"
#include "program.hpp"
#include "sequencer.hpp"
#include "work.hpp"

namespace gadl::npu {

struct Options {
  bool functional = true;
  bool races = true;
  bool trace = false;
  double least_cycles = 0;  // a limit that the caller knows; a faster run is a defect
  size_t most_events = size_t{1} << 20;  // of the trace; later ones are counted only
};

// One executed instruction. `end - start - fixed - alone` cycles were lost to others that moved data at the same time.
struct TraceEvent {
  uint8_t core, unit, op;
  uint32_t instr, debug;  // index in the core's code, debug id
  uint64_t bytes, macs;   // DRAM bytes as the instruction says
  uint64_t burst_bytes;   // in whole bursts
  double fixed, alone;    // issue and latency before the work starts, cycles of the work at full speed
  double start, end;
};

struct Report {
  double cycles = 0;
  double bound_cycles = 0;  // no machine of this shape moves and computes the program's bytes and products faster
  uint64_t instructions = 0, macs = 0;
  uint64_t dram_read_bytes = 0, dram_write_bytes = 0;  // as the instructions say
  uint64_t dram_burst_bytes = 0;                       // in whole bursts
  int64_t sram_peak_bytes = 0;
  std::vector<double> busy;             // cycles per core and queue
  std::vector<uint64_t> queue_bytes;    // DRAM bytes per core and queue, as the instructions say
  std::array<uint64_t, kRegions> region_read_bytes{}, region_write_bytes{};
  std::map<uint32_t, double> cycles_by_debug;
  std::vector<TraceEvent> trace;  // in the order of their ends
  uint64_t events_left_out = 0;
};

// The analytic level: what a run is expected to take, and when its instructions would start and end.
struct Prediction {
  double cycles = 0;
  std::vector<TraceEvent> trace;  // in the order of their ends
};

// A core's code, ready to run: what each instruction costs and touches is known, except where address registers decide.
struct CoreCode {
  Sequence sequence;
  std::vector<Work> works;            // by instruction
  std::vector<uint32_t> debug_slots;  // by instruction: position of its debug id in `Simulator::debug_ids`
};

// One program in one memory. Use by one thread at a time; instances are independent.
class Simulator {
 public:
  // Parses and keeps a pointer to the container (constants live in it); throws SimError.
  Simulator(const uint8_t* container, uint64_t size);

  const Program& program() const { return program_; }
  // Memory of regions 1-7; region 0 is bound to the constants.
  void bind_region(int index, uint8_t* data, uint64_t size);
  // The analytic level (6.4); throws SimError on deadlock.
  Prediction predict(size_t most_events) const;
  // Runs all cores to END; throws SimError on races, deadlock and accesses out of bounds. Without `functional` the memory
  // stays untouched and only regions' sizes count, so nothing need be bound.
  Report run(const Options& options);

 private:
  Program program_;
  Extents extents_;
  std::vector<CoreCode> cores_;
  std::vector<uint32_t> debug_ids_;
  std::array<Region, kRegions> regions_{};
};

}  // namespace gadl::npu
