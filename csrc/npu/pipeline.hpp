// SPDX-License-Identifier: Apache-2.0
// What a core's instructions leave in the array for those behind them: results on their way, and stationary weights.
#pragma once
#include <cstdint>
#include <vector>

#include "work.hpp"

namespace gadl::npu {

class Pipeline {
 public:
  explicit Pipeline(const Machine& machine)
      : reload_(machine[Parameter::mma_shape_2]),
        fill_(machine.integer(Parameter::mma_flow) == static_cast<int64_t>(Flow::kStream) || is_shadowed(machine) ? machine[Parameter::mma_fill] : 0) {}

  // Cycles before the work of an instruction that starts now begins. `launched`: when it is fetched and launched.
  double delay(const Work& work, double launched, double now);
  // A product is complete at `end`: its results are visible `fill` cycles later. Nothing starts before `now` any more.
  void complete(const Work& work, double end, double now);
  // When all results are visible.
  double visible() const;

 private:
  // Accumulators whose last product is still on its way through the array.
  struct Filling {
    int64_t begin, end;
    double visible;
  };
  double reload_, fill_;
  std::vector<Filling> filling_;
  double last_fold_start_ = -1;
  int64_t last_weights_ = -1, last_weights_end_ = -1;
};

}  // namespace gadl::npu
