// SPDX-License-Identifier: Apache-2.0
// What a run must not do: race, stop half-way, lose bytes, beat the physical limit.
#include <algorithm>

#include "engine.hpp"
#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr const char* kQueueNames[] = {"CTL", "LD0", "LD1", "LD2", "ST", "MMA", "VEC"};

std::string where(const Access& access) {
  const std::string range = " [" + std::to_string(access.begin) + ", " + std::to_string(access.end) + ")";
  return (access.space == Access::Space::kSram ? "SRAM" : "DRAM region " + std::to_string(access.region)) + range;
}

}  // namespace

std::string Engine::describe(const Instr& instr) {
  return std::string(find_op(instr.op)->name) + " on " + kQueueNames[static_cast<int>(instr.queue)] + " (debug " + std::to_string(instr.debug) + ")";
}

void Engine::check_races(size_t core, int queue, const Slot& slot) {
  const auto look = [&](History& history, const Access& access, int ordinal) {
    history.access(access, global(core, queue), slot.position, ordinal, states_[core].clocks[queue], [&](const History::Live& other) {
      report_race(core, slot, access, other);
    });
  };
  for (size_t i = 0; i < slot.work->accesses.size(); ++i) {
    const Access& access = slot.work->accesses[i];
    const int ordinal = static_cast<int>(i);
    // One queue uses the accumulators, in order; nothing writes region 0.
    if (access.space == Access::Space::kAcc || (access.space == Access::Space::kDram && access.region == 0)) continue;
    if (access.space == Access::Space::kDram) {
      look(dram_[access.region], access, ordinal);
      continue;
    }
    look(sram_[core], access, ordinal);
    for_each_receiver(core, *slot.code, [&](size_t other) { look(sram_[other], access, ordinal); });
  }
}

// Reports a race unless the two sets of rows only interleave.
void Engine::report_race(size_t core, const Slot& slot, const Access& access, const History::Live& other) const {
  const size_t other_core = other.queue / kQueuesPerCore;
  const Sequence& sequence = sequence_of(other_core);
  const Item& item = sequence.items[sequence.queues[other.queue % kQueuesPerCore][other.position - 1]];
  Work work;
  make_work(resolve(code(other_core), sequence, item), machine_, setup_.extents, work);
  if (!intersects(access, work.accesses[other.ordinal])) return;
  const Instr& instr = code(other_core)[item.instr];
  const std::string on = states_.size() > 1 ? "core " + std::to_string(core) + " " : "", of = states_.size() > 1 ? "core " + std::to_string(other_core) + " " : "";
  throw SimError("race: " + on + describe(*slot.code) + (access.write ? " writes " : " reads ") + where(access) + " without waiting for " + of +
                 describe(instr) + ", which " + (other.write ? "writes " : "reads ") + where(work.accesses[other.ordinal]));
}

bool Engine::finished() const {
  for (size_t c = 0; c < states_.size(); ++c)
    for (int q = 0; q < kQueuesPerCore; ++q)
      if (states_[c].heads[q] < sequence_of(c).queues[q].size()) return false;
  return true;
}

void Engine::report_deadlock() const {
  std::string text = "deadlock:";
  for (size_t c = 0; c < states_.size(); ++c) {
    const State& state = states_[c];
    const Sequence& sequence = sequence_of(c);
    for (int q = 0; q < kQueuesPerCore; ++q) {
      if (state.heads[q] >= sequence.queues[q].size()) continue;
      const Item& item = sequence.items[sequence.queues[q][state.heads[q]]];
      const Instr& instr = code(c)[item.instr];
      text += " core " + std::to_string(c) + " " + describe(instr);
      if (item.fence > state.fence) {
        text += " stands behind a barrier or host call;";
        continue;
      }
      for (const Semaphore& wait : instr.waits) {
        const uint32_t there = state.semaphores.counts[wait.index];
        if (wait.count > there) {
          text += " waits for semaphore " + std::to_string(wait.index) + " >= " + std::to_string(wait.count) + " (it stays at " + std::to_string(there) + "),";
        }
      }
      if (instr.op == Op::BAR) text += " waits for the other cores,";
      text.back() = ';';
    }
  }
  text.pop_back();
  throw SimError(text);
}

// Conservation of bytes, and no time below the limit (V5); either is a defect of the simulator.
void Engine::check_limits() {
  const auto bytes = static_cast<double>(report_.dram_burst_bytes);
  if (std::abs(moved_bytes_ - bytes) > 1e-6 * std::max(1.0, bytes)) {
    throw SimError("simulator defect: " + std::to_string(moved_bytes_) + " bytes moved, the instructions ask for " + std::to_string(bytes));
  }
  double bound = std::max(options_.least_cycles, bytes / (machine_[Parameter::dram_bytes_per_cycle] * machine_[Parameter::dram_eff]));
  for (size_t c = 0; c < states_.size(); ++c) bound = std::max({bound, mac_cycles_[c], vector_cycles_[c]});
  report_.bound_cycles = bound;
  if (report_.cycles < bound * (1 - 1e-9) - 1e-6) {
    throw SimError("simulator defect: " + std::to_string(report_.cycles) + " cycles are below the limit of " + std::to_string(bound));
  }
}

}  // namespace gadl::npu
