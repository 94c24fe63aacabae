// SPDX-License-Identifier: Apache-2.0
#include "pipeline.hpp"

#include <algorithm>

namespace gadl::npu {

double Pipeline::delay(const Work& work, double launched, double now) {
  if (work.unit == kDrain) {
    // The accumulators are there `fill` cycles after the last operands.
    double visible = now;
    for (const Filling& filling : filling_)
      for (const Access& access : work.accesses)
        if (access.space == Access::Space::kAcc && access.begin < filling.end && filling.begin < access.end) visible = std::max(visible, filling.visible);
    return visible - now;
  }
  if (work.unit != kArray) return work.fixed;
  // Launching hides behind the wait in the queue.
  double fixed = std::max(0.0, launched - now);
  if (work.last_fold > 0) {
    int64_t begin = -1, end = -1;
    for (const Access& access : work.accesses)
      if (access.space == Access::Space::kSram) begin = access.begin, end = access.end;  // weights come last
    const bool same = begin == last_weights_ && end == last_weights_end_ && work.work == work.last_fold;
    if (last_fold_start_ < 0) {
      fixed = std::max(fixed, 2 * reload_ - 1);
    } else if (!same) {
      fixed = std::max(fixed, last_fold_start_ + reload_ - now);
    }
    last_fold_start_ = now + fixed + work.work - work.last_fold;
    last_weights_ = begin;
    last_weights_end_ = end;
  }
  return fixed;
}

void Pipeline::complete(const Work& work, double end, double now) {
  if (work.unit != kArray || fill_ <= 0) return;
  filling_.erase(std::remove_if(filling_.begin(), filling_.end(), [now](const Filling& f) { return f.visible <= now; }), filling_.end());
  for (const Access& access : work.accesses)
    if (access.space == Access::Space::kAcc && access.write) filling_.push_back({access.begin, access.end, end + fill_});
}

double Pipeline::visible() const {
  double last = 0;
  for (const Filling& filling : filling_) last = std::max(last, filling.visible);
  return last;
}

}  // namespace gadl::npu
