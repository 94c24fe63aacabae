// SPDX-License-Identifier: Apache-2.0
// The analytic level (6.4): one pass over the program in the order in which instructions can start.
//
// An instruction starts when its unit is free, all before it in its queue have started, and what it waits for is done. It takes
// its own cycles at full speed, or what the bank groups take to deliver its own operands. Memory serves transfers at its full
// rate in the order in which they start, none slower than by its share among the channels that are active then. Nothing is
// looked at again: what starts later does not change an instruction, and units do not slow each other down on bank groups.
#pragma once
#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "engine.hpp"
#include "pipeline.hpp"

namespace gadl::npu {

// Memory of one rate: who comes first is served first.
class Bandwidth {
 public:
  explicit Bandwidth(double rate) : rate_(rate) {}
  // When `bytes` that arrive at `now` have moved, at most `most` of them per cycle.
  double serve(double now, double bytes, double most);
  // Nothing arrives before `now` from here on.
  void forget(double now);

 private:
  struct Piece {
    double start, used;  // bytes per cycle that are taken from here to the next piece
  };
  double rate_;
  std::vector<Piece> pieces_{{0, 0}};
};

class Analysis {
 public:
  explicit Analysis(const Setup& setup);
  // Throws SimError where the program cannot go on. At most `most_events` of the instructions are kept.
  Prediction run(size_t most_events);

 private:
  struct Last {
    const Work* work = nullptr;
    double end = 0;
    Work own;  // where address registers decide
  };
  struct Posts {
    double time;
    uint32_t count;
  };
  struct State {
    explicit State(const Machine& machine) : pipeline(machine) {}
    Pipeline pipeline;
    std::array<size_t, kQueuesPerCore> heads{};
    std::array<double, kQueuesPerCore> issued{}, posted{};  // when the last one started, and when it posted
    std::array<Last, kUnits> units;
    std::array<std::deque<Posts>, 64> posts;  // that no wait has taken, in the order of their times
    uint32_t fence = 0;
    double fenced = 0;
  };
  struct Head {
    size_t core = 0;
    int queue = -1;
    double start = 0;
  };

  double released(size_t core, int queue) const;
  double earliest(size_t core, int queue) const;
  const Work& work_of(size_t core, const Item& item, Work& own) const;
  uint64_t meeting(size_t core) const;
  double barrier(size_t core) const;
  void advance(size_t core, int queue, double start);
  int active(double time) const;
  void take(const Head& head);
  void post(size_t core, const Instr& instr, double time);
  const Item* head_of(size_t core, int queue) const;
  const Instr& instr_of(size_t core, const Item& item) const { return setup_.program.cores[core][item.instr]; }

  const Setup setup_;
  const Machine& machine_;
  const double group_bandwidth_, word_cycles_;
  Bandwidth memory_;
  std::vector<State> states_;
  std::vector<TraceEvent> events_;
};

}  // namespace gadl::npu
