// SPDX-License-Identifier: Apache-2.0
// The event simulation: in-order queues, semaphores, shared DRAM and SRAM bandwidth.
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "formulas.hpp"
#include "races.hpp"
#include "sequencer.hpp"
#include "simulator.hpp"

namespace gadl::npu {

// Units that execute: one per queue, and the drain beside the array on the MMA queue.
enum Unit { kCtl, kLd0, kLd1, kLd2, kSt, kArray, kVec, kDrain, kUnits };

class Engine {
 public:
  Engine(const Program& program, const std::array<Region, kRegions>& regions, const Options& options);
  Report run();

 private:
  struct Task {
    bool active = false;
    const Instr* instr = nullptr;
    uint32_t index = 0;      // position in its queue, from 1
    double start = 0, fixed = 0, work = 0, rate = 1;
    bool dma = false, store = false;
    std::vector<Access> accesses;
    std::vector<std::pair<int, double>> demand;  // bank group, bytes per unit of work
    Clock clock{};
  };
  struct CoreState {
    std::unique_ptr<Core> core;
    std::vector<Dispatched> code;
    std::array<std::vector<uint32_t>, kQueuesPerCore> queues;
    std::array<size_t, kQueuesPerCore> heads{};
    std::array<Task, kUnits> tasks;
    std::array<Clock, kQueuesPerCore> clocks{};
    std::array<std::deque<Clock>, 64> tokens;
    // Completed out of order on the MMA queue: posts wait for the earlier instruction.
    std::vector<std::pair<uint32_t, Task>> held;
  };

  bool issue_all();
  bool try_issue(int core, int queue);
  bool ready(CoreState& state, int queue, const Instr& instr) const;
  bool hazard(const CoreState& state, const Task& task, Unit unit) const;
  void begin(int core, int queue, Unit unit, Task&& task);
  void check_races(int core, int queue, const Task& task);
  void cost(const Instr& instr, Task& task) const;
  void demand(const Instr& instr, Task& task) const;
  void finish(int core, Unit unit);
  void release_posts(CoreState& state, const Task& task);
  void update_rates();
  double next_event() const;
  void advance(double until);
  [[noreturn]] void deadlock() const;
  int global(int core, int queue) const { return core * kQueuesPerCore + queue; }

  const Program& program_;
  const Machine& machine_;
  const std::array<Region, kRegions>& regions_;
  const Options options_;
  std::vector<CoreState> cores_;
  std::vector<History> sram_, dram_;
  double now_ = 0;
  Report report_;
};

}  // namespace gadl::npu
