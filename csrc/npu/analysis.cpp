// SPDX-License-Identifier: Apache-2.0
#include "analysis.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr int kMma = static_cast<int>(Queue::MMA);  // the control queue is number 0, as its unit

}  // namespace

double Bandwidth::serve(double now, double bytes, double most) {
  size_t at = 0;
  while (at + 1 < pieces_.size() && pieces_[at + 1].start <= now) ++at;
  if (pieces_[at].start < now) {
    const Piece rest{now, pieces_[at].used};
    ++at;
    pieces_.insert(pieces_.begin() + static_cast<int64_t>(at), rest);
  }
  for (;; ++at) {
    Piece& piece = pieces_[at];
    const double until = at + 1 < pieces_.size() ? pieces_[at + 1].start : kNever;
    const double speed = std::min(most, rate_ - piece.used);
    if (speed <= rate_ * 1e-9) continue;
    const double end = piece.start + bytes / speed;
    if (end < until) {
      const Piece rest{end, piece.used};
      piece.used += speed;
      pieces_.insert(pieces_.begin() + static_cast<int64_t>(at) + 1, rest);
      return end;
    }
    bytes -= (until - piece.start) * speed;
    piece.used += speed;
    if (bytes <= 0) return until;
  }
}

void Bandwidth::forget(double now) {
  size_t past = 0;
  while (past + 1 < pieces_.size() && pieces_[past + 1].start <= now) ++past;
  pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<int64_t>(past));
}

Analysis::Analysis(const Setup& setup)
    : setup_(setup),
      machine_(setup.program.machine),
      group_bandwidth_(machine_[Parameter::sram_banks] * machine_[Parameter::sram_bank_bytes] / machine_[Parameter::sram_groups]),
      word_cycles_(8 / machine_[Parameter::cmd_fetch_bytes_per_cycle]),
      memory_(machine_[Parameter::dram_bytes_per_cycle] * machine_[Parameter::dram_eff]),
      states_(setup.cores.size(), State(machine_)) {}

Prediction Analysis::run(size_t most_events) {
  for (;;) {
    Head next{0, -1, kNever};
    bool left = false;
    for (size_t c = 0; c < states_.size(); ++c)
      for (int q = 0; q < kQueuesPerCore; ++q) {
        if (head_of(c, q) == nullptr) continue;
        left = true;
        if (const double start = earliest(c, q); start < next.start) next = {c, q, start};
      }
    if (next.queue < 0) {
      if (left) throw SimError("deadlock: no queue can go on");
      break;
    }
    memory_.forget(next.start);
    take(next);
  }
  std::stable_sort(events_.begin(), events_.end(), [](const TraceEvent& a, const TraceEvent& b) { return a.end < b.end; });
  Prediction found;
  for (const State& state : states_) found.cycles = std::max({found.cycles, state.pipeline.visible(), *std::max_element(state.issued.begin(), state.issued.end())});
  if (!events_.empty()) found.cycles = std::max(found.cycles, events_.back().end);
  events_.resize(std::min(events_.size(), most_events));
  found.trace = std::move(events_);
  return found;
}

const Item* Analysis::head_of(size_t core, int queue) const {
  const Sequence& sequence = setup_.cores[core].sequence;
  const size_t head = states_[core].heads[queue];
  return head < sequence.queues[queue].size() ? &sequence.items[sequence.queues[queue][head]] : nullptr;
}

const Work& Analysis::work_of(size_t core, const Item& item, Work& own) const {
  if (item.values == kNoValues) return setup_.cores[core].works[item.instr];
  make_work(resolve(setup_.program.cores[core], setup_.cores[core].sequence, item), machine_, setup_.extents, own);
  return own;
}

// When the next instruction of a queue is fetched and what it waits for is done; never where that has not started yet.
double Analysis::released(size_t core, int queue) const {
  const State& state = states_[core];
  const Item& item = *head_of(core, queue);
  if (item.fence > state.fence) return kNever;
  double time = std::max({state.issued[queue], state.fenced, item.words * word_cycles_});
  for (const Semaphore& wait : instr_of(core, item).waits) {
    uint32_t wanted = wait.count;
    for (const Posts& posts : state.posts[wait.index]) {
      if (wanted == 0) break;
      time = std::max(time, posts.time);
      wanted -= std::min(wanted, posts.count);
    }
    if (wanted > 0) return kNever;
  }
  return time;
}

// When the next instruction of a queue can start.
double Analysis::earliest(size_t core, int queue) const {
  const State& state = states_[core];
  double start = released(core, queue);
  if (start == kNever) return kNever;
  const Item& item = *head_of(core, queue);
  const Instr& instr = instr_of(core, item);
  if (instr.op == Op::BAR) return barrier(core);
  const int unit = instr.op == Op::EPI ? static_cast<int>(kDrain) : queue;
  start = std::max(start, state.units[unit].end);
  if (queue != kMma) return start;
  // The array and the drain pass one another only where they touch nothing in common; a marker passes neither.
  const Last& other = state.units[unit == kDrain ? kArray : kDrain];
  if (other.work == nullptr || other.end <= start) return start;
  Work own;
  const Work& work = work_of(core, item, own);
  return work.marker || conflict(work, *other.work) ? std::max(start, other.end) : start;
}

// Cores that meet at the barrier at the head of a control queue.
uint64_t Analysis::meeting(size_t core) const { return static_cast<uint64_t>(instr_of(core, *head_of(core, kCtl)).f[bar::cores]) | (uint64_t{1} << core); }

// When all that a barrier waits for is complete.
double Analysis::barrier(size_t core) const {
  double time = 0;
  for (size_t c = 0; c < states_.size(); ++c) {
    if (!((meeting(core) >> c) & 1)) continue;
    const Item* there = head_of(c, kCtl);
    if (there == nullptr || instr_of(c, *there).op != Op::BAR) return kNever;
    for (int q = 0; q < kQueuesPerCore; ++q)
      if (const Item* head = head_of(c, q); q != kCtl && head != nullptr && head->fence <= states_[c].fence) return kNever;
    time = std::max(time, released(c, kCtl));
    for (const Last& last : states_[c].units) time = std::max(time, last.end);
  }
  return time;
}

// What an instruction waits for is taken; the next one of its queue comes to its head.
void Analysis::advance(size_t core, int queue, double start) {
  State& state = states_[core];
  for (const Semaphore& wait : instr_of(core, *head_of(core, queue)).waits) {
    auto& posts = state.posts[wait.index];
    for (uint32_t wanted = wait.count; wanted > 0;) {
      if (posts.empty()) throw SimError("two waits of one instruction name semaphore " + std::to_string(wait.index) + ", which has too few posts for both");
      const uint32_t taken = std::min(wanted, posts.front().count);
      wanted -= taken;
      if ((posts.front().count -= taken) == 0) posts.pop_front();
    }
  }
  ++state.heads[queue];
  state.issued[queue] = start;
}

// Channels that transfer at `time`, as far as they have started.
int Analysis::active(double time) const {
  int found = 0;
  for (const State& state : states_)
    for (const Last& last : state.units) found += last.work != nullptr && last.work->dma && last.end > time;
  return found;
}

void Analysis::take(const Head& head) {
  State& state = states_[head.core];
  const Item& item = *head_of(head.core, head.queue);
  const Instr& instr = instr_of(head.core, item);
  if (instr.op == Op::BAR) {
    const uint64_t mask = meeting(head.core);
    for (size_t c = 0; c < states_.size(); ++c) {
      if (!((mask >> c) & 1)) continue;
      const Instr& there = instr_of(c, *head_of(c, kCtl));
      advance(c, kCtl, head.start);
      ++states_[c].fence;
      states_[c].fenced = head.start;
      post(c, there, head.start);
    }
    return;
  }
  advance(head.core, head.queue, head.start);
  const int unit = instr.op == Op::EPI ? static_cast<int>(kDrain) : head.queue;
  Last& last = state.units[unit];
  const Work& work = work_of(head.core, item, last.own);
  double& posted = state.posted[head.queue];
  if (work.marker) return post(head.core, instr, posted = std::max(posted, head.start));
  const double begin = head.start + state.pipeline.delay(work, item.words * word_cycles_ + work.issue, head.start);
  const double full = work.dma ? dma_share(machine_, 1, work.store) : 1.0;
  double end = begin;
  if (work.dma && work.work > 0) {
    const double most = work.multicast ? machine_[Parameter::noc_bytes_per_cycle] : kNever;
    end = std::min(memory_.serve(begin, work.work, std::min(full, most)), begin + work.work / std::min(dma_share(machine_, 1 + active(begin), work.store), most));
  } else {
    end += work.work * std::max(1.0, work.heaviest / group_bandwidth_);
  }
  last.work = &work;
  last.end = end;
  state.pipeline.complete(work, end, head.start);
  events_.push_back({static_cast<uint8_t>(head.core), static_cast<uint8_t>(unit), static_cast<uint8_t>(instr.op), item.instr, instr.debug,
                     work.dram_read + work.dram_written, work.macs, work.dma ? static_cast<uint64_t>(work.work) : 0, begin - head.start,
                     work.work / full, head.start, end});
  if (instr.op == Op::CALLC) {
    ++state.fence;
    state.fenced = end;
  }
  post(head.core, instr, posted = std::max(posted, end));
}

void Analysis::post(size_t core, const Instr& instr, double time) {
  const bool multicast = instr.op == Op::LD && instr.f[ld::multicast] != 0;
  for (size_t to = 0; to < states_.size(); ++to) {
    if (to != core && !(multicast && ((instr.f[ld::multicast] >> to) & 1))) continue;
    for (const Semaphore& post : instr.posts) {
      if (post.count == 0) continue;
      auto& posts = states_[to].posts[post.index];
      posts.insert(std::upper_bound(posts.begin(), posts.end(), time, [](double at, const Posts& other) { return at < other.time; }), {time, post.count});
    }
  }
}

}  // namespace gadl::npu
