// SPDX-License-Identifier: Apache-2.0
// The event simulation: in-order queues, semaphores, shared DRAM and SRAM bandwidth.
//
// A unit works on one instruction at a time, in two phases: `fixed` cycles (issue, latency, the array's fill), then work at
// a rate that depends on who else moves data. Rates change only when a unit enters or leaves its second phase.
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "pipeline.hpp"
#include "races.hpp"
#include "simulator.hpp"

namespace gadl::npu {

inline int lowest_bit(uint32_t bits) { return __builtin_ctz(bits); }

// What a run needs of the simulator that owns it.
struct Setup {
  const Program& program;
  const Extents& extents;
  const std::vector<CoreCode>& cores;
  const std::vector<uint32_t>& debug_ids;
  const std::array<Region, kRegions>& regions;
};

class Engine {
 public:
  Engine(const Setup& setup, const Options& options);
  Report run();

 private:
  // What a unit is doing.
  struct Slot {
    bool active = false, moving = false;
    const Work* work = nullptr;
    const Instr* code = nullptr;  // as encoded: queue, semaphores, debug id
    uint32_t instr = 0;           // its index
    uint32_t position = 0;        // in its queue, from 1
    double start = 0, moved = 0, since = 0, left = 0, rate = 0;  // `moved`: when its work began
    Work own;                     // where address registers decide
    Clock clock;
  };
  // Complete, but an earlier instruction of its queue is not.
  struct Held {
    uint32_t position;
    const Instr* code;
    Clock clock;
  };
  struct Semaphores {
    std::array<uint32_t, 64> counts{};
    std::array<std::deque<Clock>, 64> clocks;  // of each post, when races are looked for
  };
  struct State {
    explicit State(const Machine& machine) : pipeline(machine) {}
    std::unique_ptr<Core> core;
    Pipeline pipeline;
    std::array<size_t, kQueuesPerCore> heads{};
    std::array<Slot, kUnits> slots;
    std::array<double, kUnits> events;  // when the slot's phase ends
    std::array<Clock, kQueuesPerCore> clocks{};
    Semaphores semaphores;
    std::vector<Held> held;
    uint32_t fence = 0;
    // Bit per queue: worth trying to issue; blocked until the fetch delivers; blocked on a semaphore.
    uint32_t ready = (1u << kQueuesPerCore) - 1, fetching = 0;
    std::array<uint8_t, 64> waiting{};
    uint32_t moving = 0;  // bit per unit in its second phase
  };

  // engine.cpp
  void issue_all();
  bool try_issue(size_t core, int queue);
  bool waits_hold(State& state, int queue, const Instr& instr) const;
  void take_waits(State& state, int queue, const Instr& instr);
  bool hazard(const State& state, const Work& work, Unit unit) const;
  bool at_barrier(size_t core) const;
  bool try_barrier(size_t core, const Instr& instr);
  void begin(size_t core, int queue, Slot& slot, const Item& item);
  void end_phase(size_t core, Unit unit);
  void finish(size_t core, Unit unit);
  void retire(size_t core, const Slot& slot, Unit unit);
  void post(size_t core, const Instr& instr, const Clock& clock);
  void count_traffic(size_t core, const Slot& slot);
  void record(size_t core, const Slot& slot, Unit unit);
  // rates.cpp
  void update_rates();
  double slowdown(const Slot& slot, const double* load) const;
  // checks.cpp
  void check_races(size_t core, int queue, const Slot& slot);
  void report_race(size_t core, const Slot& slot, const Access& access, const History::Live& other) const;
  [[noreturn]] void report_deadlock() const;
  bool finished() const;
  void check_limits();
  static std::string describe(const Instr& instr);

  const std::vector<Instr>& code(size_t core) const { return setup_.program.cores[core]; }
  const Sequence& sequence_of(size_t core) const { return setup_.cores[core].sequence; }
  // Cores besides its own that a multicast load writes to.
  template <class Use>
  void for_each_receiver(size_t core, const Instr& instr, Use&& use) const {
    if (instr.op != Op::LD || instr.f[ld::multicast] == 0) return;
    for (size_t other = 0; other < states_.size(); ++other)
      if (other != core && ((instr.f[ld::multicast] >> other) & 1)) use(other);
  }
  static int global(size_t core, int queue) { return static_cast<int>(core) * kQueuesPerCore + queue; }

  const Setup setup_;
  const Machine& machine_;
  const Options options_;
  const double group_bandwidth_;
  const double word_cycles_;  // to fetch 8 bytes of code
  std::vector<State> states_;
  std::vector<History> sram_, dram_;
  std::vector<double> debug_cycles_, mac_cycles_, vector_cycles_;
  double now_ = 0, wake_ = 0, moved_bytes_ = 0;
  size_t transfers_ = 0;  // under way
  bool rates_changed_ = false, at_barrier_ = false;
  // Bytes per cycle of a channel, by number of active channels: loads, stores.
  std::array<std::array<double, kMostCores * kUnits + 1>, 2> shares_{};
  Report report_;
};

}  // namespace gadl::npu
