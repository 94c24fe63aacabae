// SPDX-License-Identifier: Apache-2.0
#include "races.hpp"

namespace gadl::npu {

std::map<int64_t, History::State>::iterator History::split(int64_t at) {
  auto next = ranges_.lower_bound(at);
  if (next != ranges_.end() && next->first == at) return next;
  if (next != ranges_.begin()) {
    auto before = std::prev(next);
    if (before->second.end > at) {
      State tail = before->second;
      before->second.end = at;
      return ranges_.emplace_hint(next, at, std::move(tail));
    }
  }
  return next;
}

History::Conflict History::access(int64_t begin, int64_t end, bool write, int queue, uint32_t index, const Clock& known) {
  Conflict conflict;
  const auto check = [&](int other, uint32_t other_index, bool was_write) {
    if (!conflict.found && other != queue && known[other] < other_index) conflict = {true, other, other_index, was_write};
  };
  auto at = split(begin);
  split(end);
  if (write) {
    while (at != ranges_.end() && at->first < end) {
      if (at->second.write_queue >= 0) check(at->second.write_queue, at->second.write_index, true);
      for (const auto& [reader, reader_index] : at->second.readers) check(reader, reader_index, false);
      at = ranges_.erase(at);
    }
    ranges_[begin] = State{end, queue, index, {}};
    return conflict;
  }
  int64_t cursor = begin;
  at = ranges_.lower_bound(begin);
  while (cursor < end) {
    if (at == ranges_.end() || at->first > cursor) {
      const int64_t stop = at == ranges_.end() ? end : std::min(end, at->first);
      at = std::next(ranges_.emplace_hint(at, cursor, State{stop, -1, 0, {{queue, index}}}));
      cursor = stop;
      continue;
    }
    State& state = at->second;
    if (state.write_queue >= 0) check(state.write_queue, state.write_index, true);
    bool known_reader = false;
    for (auto& [reader, reader_index] : state.readers) {
      if (reader == queue) {
        reader_index = index;
        known_reader = true;
      }
    }
    if (!known_reader) state.readers.emplace_back(queue, index);
    cursor = state.end;
    ++at;
  }
  return conflict;
}

}  // namespace gadl::npu
