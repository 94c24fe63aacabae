// SPDX-License-Identifier: Apache-2.0
#include "sequencer.hpp"

#include <cstring>
#include <string>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr int kMostNesting = 3;

// Adds address registers to the fields that name one: field `x_reg` belongs to the field before it.
void resolve(Instr& instr, const std::array<int64_t, 32>& registers) {
  const OpInfo* info = find_op(instr.op);
  for (int i = 1; i < info->field_count; ++i) {
    const char* name = info->fields[i].name;
    const size_t length = std::strlen(name);
    if (length < 4 || std::strcmp(name + length - 4, "_reg") != 0 || instr.f[i] == 0) continue;
    if (instr.f[i] > 32) throw SimError("there is no address register " + std::to_string(instr.f[i] - 1));
    instr.f[i - 1] += registers[instr.f[i] - 1];
  }
}

}  // namespace

std::vector<Dispatched> sequence(const std::vector<Instr>& code, double fetch_bytes_per_cycle, std::size_t limit) {
  struct Loop {
    size_t start;
    int64_t left;
  };
  std::vector<Dispatched> out;
  out.reserve(code.size());
  std::vector<Loop> loops;
  std::array<int64_t, 32> registers{};
  double bytes = 0;
  size_t steps = 0;
  for (size_t at = 0; at < code.size(); ++at) {
    if (++steps > limit) throw SimError("the program runs for more than " + std::to_string(limit) + " instructions");
    const Instr& instr = code[at];
    bytes += instr.bytes;
    switch (instr.op) {
      case Op::SET: registers[instr.f[set::reg]] = instr.f[set::value]; continue;
      case Op::ADDA: registers[instr.f[adda::reg]] += instr.f[adda::delta]; continue;
      case Op::REP:
        if (loops.size() == kMostNesting) throw SimError("loops nest deeper than three");
        if (instr.f[rep::count] < 1) throw SimError("a loop runs at least once");
        loops.push_back({at + 1, instr.f[rep::count] - 1});
        continue;
      case Op::ENDR:
        if (loops.empty()) throw SimError("ENDR without REP");
        if (loops.back().left-- > 0) at = loops.back().start - 1;
        else loops.pop_back();
        continue;
      case Op::END: return out;
      default: break;
    }
    Dispatched item{instr, bytes / fetch_bytes_per_cycle};
    resolve(item.instr, registers);
    out.push_back(item);
  }
  throw SimError("the program has no END");
}

}  // namespace gadl::npu
