// SPDX-License-Identifier: Apache-2.0
// Who works how fast: shares of the memory's bandwidth, contention for bank groups.
#include <algorithm>

#include "engine.hpp"

namespace gadl::npu {
namespace {

constexpr int kMostGroups = 64;

}  // namespace

void Engine::update_rates() {
  rates_changed_ = false;
  for (State& state : states_) {
    double rates[kUnits], heaviest = 0;
    for (uint32_t left = state.moving; left != 0; left &= left - 1) {
      const int u = lowest_bit(left);
      const Work& work = *state.slots[u].work;
      rates[u] = work.dma ? shares_[work.store][transfers_] : 1.0;
      if (work.multicast) rates[u] = std::min(rates[u], machine_[Parameter::noc_bytes_per_cycle]);
      heaviest += work.heaviest * rates[u];
    }
    const bool contended = heaviest > group_bandwidth_;
    double load[kMostGroups];
    if (contended) {
      std::fill(load, load + machine_.integer(Parameter::sram_groups), 0.0);
      for (uint32_t left = state.moving; left != 0; left &= left - 1) {
        const int u = lowest_bit(left);
        for (const Demand& demand : state.slots[u].work->demand) load[demand.group] += demand.bytes * rates[u];
      }
    }
    for (uint32_t left = state.moving; left != 0; left &= left - 1) {
      const int u = lowest_bit(left);
      Slot& slot = state.slots[u];
      const double rate = contended ? rates[u] * slowdown(slot, load) : rates[u];
      if (rate == slot.rate) continue;
      const double done = slot.rate * (now_ - slot.since);
      if (slot.work->dma) moved_bytes_ += done;
      slot.left = std::max(0.0, slot.left - done);
      slot.since = now_;
      slot.rate = rate;
      state.events[u] = now_ + slot.left / rate;
    }
  }
}

// All users of a bank group whose demand exceeds its bandwidth are slowed in proportion (6.2).
double Engine::slowdown(const Slot& slot, const double* load) const {
  double slow = 1.0;
  for (const Demand& demand : slot.work->demand)
    if (demand.bytes > 0 && load[demand.group] > group_bandwidth_) slow = std::min(slow, group_bandwidth_ / load[demand.group]);
  return slow;
}

}  // namespace gadl::npu
