// SPDX-License-Identifier: Apache-2.0
// The simulator: bit-exact function, event-driven timing, race and deadlock detection.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core.hpp"
#include "program.hpp"

namespace gadl::npu {

struct Options {
  bool functional = true;
  bool races = true;
  bool trace = false;
};

struct TraceEvent {
  uint8_t core, queue;
  Op op;
  uint32_t debug;
  double start, end;
};

struct Report {
  double cycles = 0;
  uint64_t instructions = 0, macs = 0, dram_read_bytes = 0, dram_write_bytes = 0;
  int64_t sram_peak_bytes = 0;
  std::vector<double> busy;  // per core and queue
  std::map<uint32_t, double> cycles_by_debug;
  std::vector<TraceEvent> trace;
};

class Simulator {
 public:
  // Parses and keeps a pointer to the container (constants live in it); throws SimError.
  Simulator(const uint8_t* container, uint64_t size);

  const Program& program() const { return program_; }
  // Memory of regions 1-7; region 0 is bound to the constants.
  void bind_region(int index, uint8_t* data, uint64_t size);
  // Runs all cores to END; throws SimError on races, deadlock and accesses out of bounds.
  Report run(const Options& options);

 private:
  Program program_;
  std::array<Region, kRegions> regions_{};
};

}  // namespace gadl::npu
