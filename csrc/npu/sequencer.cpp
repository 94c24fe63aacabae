// SPDX-License-Identifier: Apache-2.0
#include "sequencer.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr int kMostNesting = 3;
constexpr int kRegisters = 32;

// Which fields of each op name a register.
struct RegisterFields {
  std::array<std::vector<uint8_t>, 256> of;
  RegisterFields() {
    for (int op = 0; op < 256; ++op) {
      const OpInfo* info = find_op(static_cast<Op>(op));
      for (int i = 1; info != nullptr && i < info->field_count; ++i) {
        const char* name = info->fields[i].name;
        const size_t length = std::strlen(name);
        if (length >= 4 && std::strcmp(name + length - 4, "_reg") == 0) of[op].push_back(static_cast<uint8_t>(i));
      }
    }
  }
};

// Fields `x_reg` name a register (0: none) that is added to the field `x` before them. Calls `use(field, register)`.
template <class Use>
void for_each_register(const Instr& instr, Use&& use) {
  static const RegisterFields fields;
  for (const uint8_t i : fields.of[static_cast<uint8_t>(instr.op)])
    if (instr.f[i] != 0) use(i - 1, static_cast<int>(instr.f[i] - 1));
}

struct Loop {
  size_t start;
  int64_t left;
};

// Makes room for the dynamic instructions, as far as counts can be believed.
void reserve(const std::vector<Instr>& code, size_t limit, Sequence& out) {
  std::vector<size_t> times{1};
  std::array<size_t, 7> sizes{};
  size_t total = 0;
  for (const Instr& instr : code) {
    if (instr.op == Op::REP) {
      times.push_back(std::min(limit, times.back() * static_cast<size_t>(std::max<int64_t>(instr.f[rep::count], 1))));
    } else if (instr.op == Op::ENDR) {
      if (times.size() > 1) times.pop_back();
    } else {
      total += times.back();
      sizes[static_cast<int>(instr.queue)] += times.back();
    }
  }
  if (total > limit) return;
  out.items.reserve(total);
  for (size_t q = 0; q < sizes.size(); ++q) out.queues[q].reserve(sizes[q]);
}

}  // namespace

Sequence sequence(const std::vector<Instr>& code, std::size_t limit) {
  std::vector<uint8_t> named(code.size());  // instructions that name registers
  for (size_t i = 0; i < code.size(); ++i) for_each_register(code[i], [&](int, int) { named[i] = 1; });
  Sequence out;
  reserve(code, limit, out);
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
