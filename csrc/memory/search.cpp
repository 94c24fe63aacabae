// SPDX-License-Identifier: Apache-2.0
#include "search.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

namespace gadl::memory {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
// Steps of the shortest round, per pair of neighbours.
constexpr int64_t kRound = 100;
// How much of an item's weight stays from round to round, and by how much chance changes its place in the order.
constexpr double kMemory = 0.5, kNoise = 0.3;

// What is known of an item in the present state of the search.
struct Position {
  int64_t skyline = 0;  // the lowest offset above everything placed that lives with it
  int64_t least = 0;    // no better solution has the item below this; the offset once it is placed
  bool placed = false;
};

// 1 1 2 1 1 2 4 1 …: the lengths of rounds that lose least when nobody knows how long a good one takes (Luby, Sinclair and
// Zuckerman, 1993).
int64_t luby(int64_t round) {
  int64_t power = 1;
  while (2 * power - 1 < round) power *= 2;
  return 2 * power - 1 == round ? power : luby(round - power + 1);
}

class Search {
 public:
  Search(const std::vector<Item>& items, int64_t capacity, int64_t steps) : items_(items), capacity_(capacity), most_steps_(steps) {}

  Result run();

 private:
  // An open decision: `chosen` is the lowest of a connected part; what remains falls into parts that are done in turn.
  struct Frame {
    std::vector<int> members;
    int chosen = -1;
    size_t mark = 0;
    std::vector<std::vector<int>> parts;
    size_t done = 0;
  };
  struct Change {
    int item;
    Position before;
  };

  bool find_cliques();
  bool find_neighbours();
  void choose_order(int64_t round);
  Outcome attempt(const std::vector<std::vector<int>>& parts);
  bool open(Frame& frame);
  bool raise(Frame& frame);
  void place(int item);
  bool raise_blocked(const std::vector<int>& members);
  bool fit(const std::vector<std::vector<int>>& parts, size_t mark);
  bool fits(const std::vector<int>& members);
  std::vector<std::vector<int>> split(const std::vector<int>& members) const;

  void set(int item, const Position& position) {
    trail_.push_back({item, now_[item]});
    now_[item] = position;
  }
  void undo(size_t mark) {
    for (; trail_.size() > mark; trail_.pop_back()) now_[trail_.back().item] = trail_.back().before;
  }
  int64_t aligned(int item, int64_t offset) const {
    const int64_t a = items_[item].alignment;
    return (offset + a - 1) / a * a;
  }

  const std::vector<Item>& items_;
  const int64_t capacity_, most_steps_;
  int64_t steps_ = 0, round_end_ = 0, pairs_ = 0;
  std::vector<Position> now_;
  std::vector<Change> trail_;
  // The largest sets of items that live at once, in the order of time, and the range of them that an item belongs to.
  std::vector<std::vector<int>> cliques_;
  std::vector<int> first_, last_;
  std::vector<int> by_first_;
  std::vector<int> reach_;  // by clique, the last one of a changed item that begins there, or -1
  std::vector<std::vector<int>> neighbours_;
  // Between items that could be placed equally low the smaller rank goes first. Weights count the failures in an item's cliques.
  std::vector<int> rank_;
  std::vector<double> weight_;
  std::mt19937_64 chance_;
};

// Both are false when there is more to write down than steps.
bool Search::find_cliques() {
  const int count = static_cast<int>(items_.size());
  std::vector<int> by_start(count), by_end(count), alive;
  std::iota(by_start.begin(), by_start.end(), 0);
  by_end = by_start;
  std::stable_sort(by_start.begin(), by_start.end(), [&](int a, int b) { return items_[a].start < items_[b].start; });
  std::stable_sort(by_end.begin(), by_end.end(), [&](int a, int b) { return items_[a].end < items_[b].end; });
  first_.assign(count, 0);
  last_.assign(count, 0);
  bool grown = false;
  size_t started = 0;
  for (int leaving : by_end) {
    for (; started < by_start.size() && items_[by_start[started]].start < items_[leaving].end; ++started) {
      first_[by_start[started]] = static_cast<int>(cliques_.size());
      alive.push_back(by_start[started]);
      grown = true;
    }
    // The set is largest where something has come and something goes.
    if (grown) cliques_.push_back(alive);
    if (grown && (steps_ += static_cast<int64_t>(alive.size())) > most_steps_) return false;
    grown = false;
    last_[leaving] = static_cast<int>(cliques_.size()) - 1;
    alive.erase(std::find(alive.begin(), alive.end(), leaving));
  }
  by_first_ = by_start;
  return true;
}

bool Search::find_neighbours() {
  const int count = static_cast<int>(items_.size());
  neighbours_.resize(count);
  for (int a = 0; a < count; ++a) {
    for (int b : cliques_[first_[a]]) {
      if (b != a) neighbours_[a].push_back(b);
    }
    // The others come later.
    auto later = std::upper_bound(by_first_.begin(), by_first_.end(), first_[a], [&](int clique, int b) { return clique < first_[b]; });
    for (; later != by_first_.end() && first_[*later] <= last_[a]; ++later) neighbours_[a].push_back(*later);
    pairs_ += static_cast<int64_t>(neighbours_[a].size());
    if (steps_ + pairs_ > most_steps_) return false;
  }
  steps_ += pairs_;
  return true;
}

// Items that many others need to be with go first, then those that live long, in turn; the more so the more often rounds failed
// around them.
void Search::choose_order(int64_t round) {
  const int count = static_cast<int>(items_.size());
  std::vector<double> key(count);
  for (int item = 0; item < count; ++item) {
    const Item& it = items_[item];
    double value = static_cast<double>(it.end - it.start);
    if (round % 2 == 0) {
      value = 0;
      for (int c = first_[item]; c <= last_[item]; ++c) {
        double sum = 0;
        for (int other : cliques_[c]) sum += static_cast<double>(items_[other].size);
        value = std::max(value, sum);
      }
    }
    const double change = static_cast<double>(chance_() >> 11) / static_cast<double>(1ULL << 52) - 1;
    key[item] = value * weight_[item] * (round < 2 ? 1 : 1 + kNoise * change);
    weight_[item] = 1 + (weight_[item] - 1) * kMemory;
  }
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const auto life = [&](int item) { return items_[item].end - items_[item].start; };
    if (key[a] != key[b]) return key[a] > key[b];
    return life(a) != life(b) ? life(a) > life(b) : items_[a].size > items_[b].size;
  });
  rank_.resize(count);
  for (int at = 0; at < count; ++at) rank_[order[at]] = at;
}

// Places an item where it is; what lives with it can only lie above.
void Search::place(int item) {
  Position mine = now_[item];
  mine.placed = true;
  set(item, mine);
  const int64_t top = mine.least + items_[item].size;
  steps_ += static_cast<int64_t>(neighbours_[item].size());
  for (int other : neighbours_[item]) {
    Position theirs = now_[other];
    if (theirs.placed) continue;
    theirs.skyline = std::max(theirs.skyline, aligned(other, top));
    theirs.least = std::max(theirs.least, theirs.skyline);
    set(other, theirs);
  }
}

// An item that does not lie on the skyline lies above another one that keeps it from dropping there. Without such a one
// the solution would not be the lowest.
bool Search::raise_blocked(const std::vector<int>& members) {
  for (bool changed = true; changed;) {
    changed = false;
    for (int item : members) {
      Position mine = now_[item];
      if (mine.placed || mine.least == mine.skyline) continue;
      int64_t least = kNever;
      steps_ += static_cast<int64_t>(neighbours_[item].size());
      for (int other : neighbours_[item]) {
        const Position& theirs = now_[other];
        if (!theirs.placed && theirs.least < mine.skyline + items_[item].size) least = std::min(least, theirs.least + items_[other].size);
      }
      if (least == kNever) return false;
      least = aligned(item, least);
      if (least <= mine.least) continue;
      if (least + items_[item].size > capacity_) return false;
      mine.least = least;
      set(item, mine);
      changed = true;
    }
  }
  return true;
}

// What lives at once is stacked: from the lowest on it needs the sum of the sizes. Only what has changed since `mark` is
// looked at. Parts are given in the order of time.
bool Search::fit(const std::vector<std::vector<int>>& parts, size_t mark) {
  for (size_t at = mark; at < trail_.size(); ++at) {
    const int item = trail_[at].item;
    if (!now_[item].placed) reach_[first_[item]] = std::max(reach_[first_[item]], last_[item]);
  }
  const bool good = std::all_of(parts.begin(), parts.end(), [&](const auto& part) { return fits(part); });
  for (size_t at = mark; at < trail_.size(); ++at) reach_[first_[trail_[at].item]] = -1;
  return good;
}

bool Search::fits(const std::vector<int>& members) {
  int changed = -1, end = 0;
  for (int item : members) end = std::max(end, last_[item]);
  steps_ += static_cast<int64_t>(members.size());
  for (int c = first_[members.front()]; c <= end; ++c) {
    changed = std::max(changed, reach_[c]);
    if (changed < c) continue;
    steps_ += static_cast<int64_t>(cliques_[c].size());
    int64_t low = kNever, sum = 0;
    for (int item : cliques_[c]) {
      if (now_[item].placed) continue;
      low = std::min(low, now_[item].least);
      sum += items_[item].size;
    }
    if (sum > 0 && low + sum > capacity_) {
      for (int item : cliques_[c]) weight_[item] += 1;
      return false;
    }
  }
  return true;
}

// Unplaced members by the parts that share no moment. Members stay in the order of their first clique.
std::vector<std::vector<int>> Search::split(const std::vector<int>& members) const {
  std::vector<std::vector<int>> parts;
  int end = -1;
  for (int item : members) {
    if (now_[item].placed) continue;
    if (parts.empty() || first_[item] > end) parts.emplace_back();
    parts.back().push_back(item);
    end = std::max(end, last_[item]);
  }
  return parts;
}

// Places the lowest member: no other can lie below it.
bool Search::open(Frame& frame) {
  steps_ += static_cast<int64_t>(frame.members.size());
  frame.chosen = *std::min_element(frame.members.begin(), frame.members.end(), [&](int a, int b) {
    return std::make_pair(now_[a].least, rank_[a]) < std::make_pair(now_[b].least, rank_[b]);
  });
  frame.mark = trail_.size();
  place(frame.chosen);
  if (!raise_blocked(frame.members)) return false;
  frame.parts = split(frame.members);
  frame.done = 0;
  return fit(frame.parts, frame.mark);
}

// The other choice: the member does not lie there, so it lies above another one.
bool Search::raise(Frame& frame) {
  undo(frame.mark);
  Position mine = now_[frame.chosen];
  mine.least = aligned(frame.chosen, mine.skyline + 1);
  set(frame.chosen, mine);
  return raise_blocked(frame.members) && fit({frame.members}, frame.mark);
}

// One round over all parts, in the present order.
Outcome Search::attempt(const std::vector<std::vector<int>>& parts) {
  now_.assign(items_.size(), {});
  trail_.clear();
  std::vector<Frame> frames(1);
  frames.back().parts = parts;
  while (steps_ <= round_end_) {
    Frame& top = frames.back();
    if (top.done == top.parts.size()) {
      frames.pop_back();
      if (frames.empty()) return Outcome::found;
      continue;
    }
    Frame next;
    next.members = top.parts[top.done++];
    frames.push_back(std::move(next));
    bool good = open(frames.back());
    while (!good && steps_ <= round_end_) {
      if (raise(frames.back())) {
        good = open(frames.back());
      } else {
        // The part has no solution: the decision that left it is wrong, whatever was decided in its other parts.
        frames.pop_back();
        if (frames.size() == 1) return Outcome::none;
      }
    }
  }
  return Outcome::stopped;
}

Result Search::run() {
  for (const Item& item : items_) {
    if (item.size > capacity_) return {Outcome::none, steps_, {}};
  }
  if (!find_cliques()) return {Outcome::stopped, steps_, {}};
  now_.assign(items_.size(), {});
  weight_.assign(items_.size(), 1);
  reach_.assign(cliques_.size(), static_cast<int>(cliques_.size()));
  const std::vector<std::vector<int>> parts = split(by_first_);
  if (!fit(parts, 0)) return {Outcome::none, steps_, {}};
  reach_.assign(cliques_.size(), -1);
  if (!find_neighbours()) return {Outcome::stopped, steps_, {}};
  for (int64_t round = 0; steps_ < most_steps_; ++round) {
    choose_order(round);
    round_end_ = std::min(most_steps_, steps_ + luby(round + 1) * kRound * (pairs_ + 1));
    const Outcome outcome = attempt(parts);
    if (outcome == Outcome::none) return {outcome, steps_, {}};
    if (outcome == Outcome::stopped) continue;
    Result result{outcome, steps_, {}};
    for (const Position& position : now_) result.offsets.push_back(position.least);
    return result;
  }
  return {Outcome::stopped, steps_, {}};
}

}  // namespace

Result search(const std::vector<Item>& items, int64_t capacity, int64_t steps) { return Search(items, capacity, steps).run(); }

}  // namespace gadl::memory
