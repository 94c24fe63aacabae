// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kEpsilon = 1e-7;

}  // namespace

Engine::Engine(const Setup& setup, const Options& options)
    : setup_(setup),
      machine_(setup.program.machine),
      options_(options),
      group_bandwidth_(machine_[Parameter::sram_banks] * machine_[Parameter::sram_bank_bytes] / machine_[Parameter::sram_groups]),
      word_cycles_(8 / machine_[Parameter::cmd_fetch_bytes_per_cycle]),
      debug_cycles_(setup.debug_ids.size()),
      mac_cycles_(setup.cores.size()),
      vector_cycles_(setup.cores.size()) {
  states_.reserve(setup.cores.size());
  for (size_t c = 0; c < setup.cores.size(); ++c) {
    states_.emplace_back(machine_);
    states_[c].events.fill(kNever);
    if (options_.functional) states_[c].core = std::make_unique<Core>(machine_);
    if (options_.races) sram_.emplace_back(machine_.sram_bytes());
    report_.instructions += sequence_of(c).items.size();
  }
  if (options_.races)
    for (const uint64_t size : setup.program.region_sizes) dram_.emplace_back(static_cast<int64_t>(size));
  report_.busy.assign(states_.size() * kQueuesPerCore, 0.0);
  report_.queue_bytes.assign(report_.busy.size(), 0);
  for (const bool store : {false, true})
    for (size_t n = 1; n < shares_[store].size(); ++n) shares_[store][n] = dma_share(machine_, static_cast<int>(n), store);
}

Report Engine::run() {
  wake_ = kNever;
  for (;;) {
    issue_all();
    if (rates_changed_) update_rates();
    double next = wake_;
    for (const State& state : states_)
      for (const double event : state.events) next = std::min(next, event);
    if (next == kNever) break;
    now_ = std::max(now_, next);
    if (wake_ <= now_ + kEpsilon) {
      wake_ = kNever;
      for (State& state : states_) state.ready |= std::exchange(state.fetching, 0);
    }
    for (size_t c = 0; c < states_.size(); ++c)
      for (int u = 0; u < kUnits; ++u)
        if (states_[c].events[u] <= now_ + kEpsilon) end_phase(c, static_cast<Unit>(u));
  }
  if (!finished()) report_deadlock();
  for (const State& state : states_) now_ = std::max(now_, state.pipeline.visible());
  report_.cycles = now_;
  for (size_t i = 0; i < debug_cycles_.size(); ++i)
    if (debug_cycles_[i] > 0) report_.cycles_by_debug[setup_.debug_ids[i]] = debug_cycles_[i];
  check_limits();
  return std::move(report_);
}

void Engine::issue_all() {
  for (bool any = true; any;) {
    any = false;
    for (size_t c = 0; c < states_.size(); ++c) {
      uint32_t& ready = states_[c].ready;
      for (int q = 0; ready != 0; ++q) {
        // The next queue in turn that is ready.
        q = (ready >> q) != 0 ? q + lowest_bit(ready >> q) : lowest_bit(ready);
        ready &= ~(1u << q);
        while (try_issue(c, q)) {
          any = true;
          if (at_barrier_ && q != 0)
            for (State& state : states_) state.ready |= 1;
        }
      }
    }
  }
}

bool Engine::try_issue(size_t core, int queue) {
  State& state = states_[core];
  const Sequence& sequence = sequence_of(core);
  const auto& items = sequence.queues[queue];
  const size_t head = state.heads[queue];
  if (head >= items.size()) return false;
  const Item& item = sequence.items[items[head]];
  if (item.fence > state.fence) return false;
  const Instr& instr = code(core)[item.instr];
  const bool drain = instr.op == Op::EPI;
  const Unit unit = drain ? kDrain : static_cast<Unit>(queue);
  Slot& slot = state.slots[unit];
  if (slot.active || !waits_hold(state, queue, instr)) return false;
  if (const double fetched = item.words * word_cycles_; fetched > now_ + kEpsilon) {
    wake_ = std::min(wake_, fetched);
    state.fetching |= 1u << queue;
    return false;
  }
  if (instr.op == Op::BAR) {
    at_barrier_ = !try_barrier(core, instr);
    return !at_barrier_;
  }
  const Work* work = &setup_.cores[core].works[item.instr];
  if (item.values != kNoValues) {
    make_work(resolve(code(core), sequence, item), machine_, setup_.extents, slot.own);
    work = &slot.own;
  }
  const bool array_queue = queue == static_cast<int>(Queue::MMA);
  if (array_queue && hazard(state, *work, work->marker ? kUnits : unit)) return false;
  take_waits(state, queue, instr);
  slot.work = work;
  slot.code = &instr;
  slot.instr = item.instr;
  slot.position = static_cast<uint32_t>(++state.heads[queue]);
  if (options_.races) {
    slot.clock = state.clocks[queue];
    slot.clock[global(core, queue)] = slot.position;
  }
  if (work->marker) {
    post(core, instr, slot.clock);
    return true;
  }
  begin(core, queue, slot, item);
  return true;
}

bool Engine::waits_hold(State& state, int queue, const Instr& instr) const {
  for (const Semaphore& wait : instr.waits) {
    if (wait.count <= state.semaphores.counts[wait.index]) continue;
    state.waiting[wait.index] |= static_cast<uint8_t>(1u << queue);
    return false;
  }
  return true;
}

void Engine::take_waits(State& state, int queue, const Instr& instr) {
  for (const Semaphore& wait : instr.waits) {
    if (wait.count == 0) continue;
    if (wait.count > state.semaphores.counts[wait.index]) {
      throw SimError("two waits of one instruction name semaphore " + std::to_string(wait.index) + ", which has too few posts for both");
    }
    state.semaphores.counts[wait.index] -= wait.count;
    if (!options_.races) continue;
    auto& clocks = state.semaphores.clocks[wait.index];
    for (int i = 0; i < wait.count; ++i) {
      merge(state.clocks[queue], clocks.front());
      clocks.pop_front();
    }
  }
}

// The array and the drain share a queue: one may pass the other only where they touch nothing in common.
// A marker (`kUnits`) passes neither.
bool Engine::hazard(const State& state, const Work& work, Unit unit) const {
  for (const Unit other : {kArray, kDrain}) {
    const Slot& slot = state.slots[other];
    if (other == unit || !slot.active) continue;
    if (unit == kUnits) return true;
    if (conflict(work, *slot.work)) return true;
  }
  return false;
}

bool Engine::at_barrier(size_t core) const {
  const State& state = states_[core];
  const Sequence& sequence = sequence_of(core);
  for (const Slot& slot : state.slots)
    if (slot.active) return false;
  for (int q = 0; q < kQueuesPerCore; ++q) {
    const auto& items = sequence.queues[q];
    const bool ended = state.heads[q] >= items.size();
    if (q == static_cast<int>(Queue::CTL)) {
      if (ended || code(core)[sequence.items[items[state.heads[q]]].instr].op != Op::BAR) return false;
    } else if (!ended && sequence.items[items[state.heads[q]]].fence <= state.fence) {
      return false;
    }
  }
  return true;
}

bool Engine::try_barrier(size_t core, const Instr& instr) {
  const auto mask = static_cast<uint64_t>(instr.f[bar::cores]) | (uint64_t{1} << core);
  if (mask >> states_.size()) throw SimError("a barrier of core " + std::to_string(core) + " names a core without code");
  const auto head = [this](size_t c) -> const Instr& {
    return code(c)[sequence_of(c).items[sequence_of(c).queues[0][states_[c].heads[0]]].instr];
  };
  Clock together{};
  for (size_t c = 0; c < states_.size(); ++c) {
    if (!((mask >> c) & 1)) continue;
    if (!at_barrier(c)) return false;
    if ((static_cast<uint64_t>(head(c).f[bar::cores]) | (uint64_t{1} << c)) != mask) throw SimError("cores meet at barriers that name different cores");
    if (!waits_hold(states_[c], 0, head(c))) return false;
  }
  for (size_t c = 0; c < states_.size(); ++c) {
    if (!((mask >> c) & 1)) continue;
    take_waits(states_[c], 0, head(c));
    for (int q = 0; q < kQueuesPerCore; ++q) {
      merge(together, states_[c].clocks[q]);
      together[global(c, q)] = static_cast<uint32_t>(states_[c].heads[q]) + (q == 0 ? 1 : 0);
    }
  }
  for (size_t c = 0; c < states_.size(); ++c) {
    if (!((mask >> c) & 1)) continue;
    const Instr& barrier = head(c);
    ++states_[c].heads[0];
    ++states_[c].fence;
    states_[c].ready = (1u << kQueuesPerCore) - 1;
    states_[c].clocks.fill(together);
    post(c, barrier, together);
  }
  return true;
}

void Engine::count_traffic(size_t core, const Slot& slot) {
  const Work& work = *slot.work;
  report_.sram_peak_bytes = std::max(report_.sram_peak_bytes, work.sram_end);
  if (!work.dma) return;
  report_.dram_burst_bytes += static_cast<uint64_t>(work.work);
  report_.dram_read_bytes += work.dram_read;
  report_.dram_write_bytes += work.dram_written;
  report_.queue_bytes[global(core, static_cast<int>(slot.code->queue))] += work.dram_read + work.dram_written;
  if (slot.code->op == Op::CALLC) return;  // the host's memory
  report_.region_read_bytes[work.region] += work.dram_read;
  report_.region_write_bytes[work.region] += work.dram_written;
}

void Engine::begin(size_t core, int queue, Slot& slot, const Item& item) {
  State& state = states_[core];
  const Work& work = *slot.work;
  if (options_.races) check_races(core, queue, slot);
  report_.macs += work.macs;
  mac_cycles_[core] += work.mac_cycles;
  vector_cycles_[core] += work.vector_cycles;
  count_traffic(core, slot);
  if (options_.functional) {
    const Instr instr = resolve(code(core), sequence_of(core), item);
    state.core->execute(instr, setup_.regions);
    for_each_receiver(core, *slot.code, [&](size_t other) { states_[other].core->execute(instr, setup_.regions); });
  }
  slot.active = true;
  slot.moving = false;
  slot.start = now_;
  slot.left = work.work;
  state.events[work.unit] = now_ + state.pipeline.delay(work, item.words * word_cycles_ + work.issue, now_);
  if (state.events[work.unit] <= now_ + kEpsilon) end_phase(core, work.unit);
}

void Engine::end_phase(size_t core, Unit unit) {
  Slot& slot = states_[core].slots[unit];
  if (slot.moving || slot.left <= 0) return finish(core, unit);
  slot.moving = true;
  states_[core].moving |= 1u << unit;
  transfers_ += slot.work->dma;
  slot.moved = slot.since = now_;
  slot.rate = 0;
  states_[core].events[unit] = kNever;
  rates_changed_ = true;
}

void Engine::record(size_t core, const Slot& slot, Unit unit) {
  if (report_.trace.size() >= options_.most_events) {
    ++report_.events_left_out;
    return;
  }
  const Work& work = *slot.work;
  const double begun = slot.moving ? slot.moved : now_;
  const double full = work.dma ? shares_[work.store][1] : 1.0;
  report_.trace.push_back({static_cast<uint8_t>(core), static_cast<uint8_t>(unit), static_cast<uint8_t>(slot.code->op), slot.instr, slot.code->debug,
                           work.dram_read + work.dram_written, work.macs, work.dma ? static_cast<uint64_t>(work.work) : 0, begun - slot.start,
                           slot.moving ? work.work / full : 0.0, slot.start, now_});
}

void Engine::finish(size_t core, Unit unit) {
  State& state = states_[core];
  Slot& slot = state.slots[unit];
  const double time = now_ - slot.start;
  if (options_.trace) record(core, slot, unit);
  if (slot.moving) {
    if (slot.work->dma) moved_bytes_ += slot.rate * (now_ - slot.since);
    state.moving &= ~(1u << unit);
    transfers_ -= slot.work->dma;
    rates_changed_ = true;
  }
  slot.active = slot.moving = false;
  state.events[unit] = kNever;
  report_.busy[global(core, static_cast<int>(slot.code->queue))] += time;
  debug_cycles_[setup_.cores[core].debug_slots[slot.instr]] += time;
  state.pipeline.complete(*slot.work, now_, now_);
  retire(core, slot, unit);
}

// Posts in the queue's order: an instruction that overtook an earlier one is held back.
void Engine::retire(size_t core, const Slot& slot, Unit unit) {
  State& state = states_[core];
  state.ready |= 1u << static_cast<int>(slot.code->queue);
  if (at_barrier_)
    for (State& each : states_) each.ready |= 1;
  if (slot.code->op == Op::CALLC) {
    ++state.fence;
    state.ready = (1u << kQueuesPerCore) - 1;
  }
  if (unit != kArray && unit != kDrain) return post(core, *slot.code, slot.clock);
  const Slot& other = state.slots[unit == kArray ? kDrain : kArray];
  if (other.active && other.position < slot.position) {
    state.held.push_back({slot.position, slot.code, slot.clock});
    return;
  }
  post(core, *slot.code, slot.clock);
  while (!state.held.empty() && !(other.active && other.position < state.held.front().position)) {
    const Held held = state.held.front();
    state.held.erase(state.held.begin());
    post(core, *held.code, held.clock);
  }
}

void Engine::post(size_t core, const Instr& instr, const Clock& clock) {
  const auto deliver = [&](size_t to) {
    for (const Semaphore& post : instr.posts) {
      if (post.count == 0) continue;
      Semaphores& semaphores = states_[to].semaphores;
      semaphores.counts[post.index] += post.count;
      states_[to].ready |= std::exchange(states_[to].waiting[post.index], uint8_t{0});
      if (options_.races)
        for (int i = 0; i < post.count; ++i) semaphores.clocks[post.index].push_back(clock);
    }
  };
  deliver(core);
  for_each_receiver(core, instr, deliver);
}

}  // namespace gadl::npu
