// SPDX-License-Identifier: Apache-2.0
#include "simulator.hpp"

#include <algorithm>

#include "analysis.hpp"
#include "engine.hpp"
#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr size_t kMostInstructions = 4'000'000;

}  // namespace

Simulator::Simulator(const uint8_t* container, uint64_t size) : program_(parse_program(container, size)) {
  regions_[0] = {const_cast<uint8_t*>(program_.constants), program_.constants_size};
  extents_ = {program_.machine.sram_bytes(), program_.machine.acc_bytes(), program_.region_sizes};
  for (const auto& code : program_.cores)
    for (const Instr& instr : code)
      if (debug_ids_.empty() || debug_ids_.back() != instr.debug) debug_ids_.push_back(instr.debug);
  std::sort(debug_ids_.begin(), debug_ids_.end());
  debug_ids_.erase(std::unique(debug_ids_.begin(), debug_ids_.end()), debug_ids_.end());
  for (const auto& code : program_.cores) {
    CoreCode core;
    core.sequence = sequence(code, kMostInstructions);
    core.works.resize(code.size());
    for (const Item& item : core.sequence.items) {
      Work& work = core.works[item.instr];
      if (item.values == kNoValues && !work.computed) make_work(code[item.instr], program_.machine, extents_, work);
    }
    for (const Instr& instr : code) {
      core.debug_slots.push_back(static_cast<uint32_t>(std::lower_bound(debug_ids_.begin(), debug_ids_.end(), instr.debug) - debug_ids_.begin()));
    }
    cores_.push_back(std::move(core));
  }
}

void Simulator::bind_region(int index, uint8_t* data, uint64_t size) {
  if (index < 1 || index >= kRegions) throw SimError("only regions 1 to 7 are bound");
  if (size < program_.region_sizes[index]) throw SimError("region " + std::to_string(index) + " is smaller than the program needs");
  regions_[index] = {data, size};
}

Prediction Simulator::predict(size_t most_events) const { return Analysis({program_, extents_, cores_, debug_ids_, regions_}).run(most_events); }

Report Simulator::run(const Options& options) {
  for (int i = 1; i < kRegions && options.functional; ++i)
    if (regions_[i].size < program_.region_sizes[i]) throw SimError("region " + std::to_string(i) + " is not bound");
  return Engine({program_, extents_, cores_, debug_ids_, regions_}, options).run();
}

}  // namespace gadl::npu
