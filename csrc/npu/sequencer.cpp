// SPDX-License-Identifier: Apache-2.0
#include "sequencer.hpp"

#include <cstring>
#include <string>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr int kMostNesting = 3;
constexpr int kRegisters = 32;

// Fields `x_reg` name a register (0: none) that is added to the field `x` before them. Calls `use(field, register)`.
template <class Use>
void for_each_register(const Instr& instr, Use&& use) {
  const OpInfo* info = find_op(instr.op);
  for (int i = 1; i < info->field_count; ++i) {
    const char* name = info->fields[i].name;
    const size_t length = std::strlen(name);
    if (instr.f[i] != 0 && length >= 4 && std::strcmp(name + length - 4, "_reg") == 0) use(i - 1, static_cast<int>(instr.f[i] - 1));
  }
}

struct Loop {
  size_t start;
  int64_t left;
};

}  // namespace

Sequence sequence(const std::vector<Instr>& code, std::size_t limit) {
  std::vector<uint8_t> named(code.size());  // instructions that name registers
  for (size_t i = 0; i < code.size(); ++i) for_each_register(code[i], [&](int, int) { named[i] = 1; });
  Sequence out;
  std::vector<Loop> loops;
  std::array<int64_t, kRegisters> registers{};
  size_t steps = 0;
  uint32_t fence = 0, words = 0;
  for (size_t at = 0; at < code.size(); ++at) {
    if (++steps > limit) throw SimError("the program runs for more than " + std::to_string(limit) + " instructions");
    const Instr& instr = code[at];
    words += instr.bytes / 8;
    switch (instr.op) {
      case Op::SET: registers[instr.f[set::reg]] = instr.f[set::value]; continue;
      case Op::ADDA: {
        int64_t& value = registers[instr.f[adda::reg]];
        value += instr.f[adda::delta];
        if (value < 0 || value >= int64_t{1} << 36) throw SimError("address register " + std::to_string(instr.f[adda::reg]) + " leaves 36 bits");
        continue;
      }
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
      case Op::END:
        if (!loops.empty()) throw SimError("END inside a loop");
        return out;
      default: break;
    }
    Item item;
    item.instr = static_cast<uint32_t>(at);
    item.fence = fence;
    item.words = words;
    if (named[at]) {
      item.values = static_cast<uint32_t>(out.values.size());
      for_each_register(instr, [&](int field, int reg) {
        if (reg >= kRegisters) throw SimError("there is no address register " + std::to_string(reg));
        out.values.push_back(instr.f[field] + registers[reg]);
      });
    }
    if (instr.op == Op::BAR || instr.op == Op::CALLC) ++fence;
    out.queues[static_cast<int>(instr.queue)].push_back(static_cast<uint32_t>(out.items.size()));
    out.items.push_back(item);
  }
  throw SimError("the program has no END");
}

Instr resolve(const std::vector<Instr>& code, const Sequence& sequence, const Item& item) {
  Instr instr = code[item.instr];
  if (item.values == kNoValues) return instr;
  uint32_t next = item.values;
  for_each_register(code[item.instr], [&](int field, int) { instr.f[field] = sequence.values[next++]; });
  return instr;
}

}  // namespace gadl::npu
