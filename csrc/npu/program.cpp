// SPDX-License-Identifier: Apache-2.0
#include "program.hpp"

#include <cmath>
#include <cstring>
#include <string>

#include "error.hpp"

namespace gadl::npu {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 34;

class Reader {
 public:
  Reader(const uint8_t* data, uint64_t size) : data_(data), size_(size) {}

  const uint8_t* at(uint64_t offset, uint64_t length, const char* what) const {
    if (offset > size_ || length > size_ - offset) throw SimError(std::string("the program ends inside its ") + what);
    return data_ + offset;
  }
  template <class T>
  T read(uint64_t offset, const char* what) const {
    T value;
    std::memcpy(&value, at(offset, sizeof(T), what), sizeof(T));
    return value;
  }

 private:
  const uint8_t* data_;
  uint64_t size_;
};

// `count` < 64 bits from `bit`, little endian, out of whole words.
uint64_t bits_at(const uint8_t* words, int bit, int count) {
  uint64_t low, high = 0;
  const int shift = bit % 64;
  std::memcpy(&low, words + bit / 64 * 8, 8);
  if (shift + count > 64) std::memcpy(&high, words + bit / 64 * 8 + 8, 8);
  const uint64_t value = (low >> shift) | (shift == 0 ? 0 : high << (64 - shift));
  return value & ((uint64_t{1} << count) - 1);
}

Instr decode(const Reader& reader, uint64_t offset, uint64_t end) {
  const uint64_t word0 = reader.read<uint64_t>(offset, "code"), word1 = reader.read<uint64_t>(offset + 8, "code");
  const OpInfo* info = find_op(static_cast<Op>(word0 & 0xFF));
  const unsigned queue = (word0 >> 8) & 0xF;
  if (info == nullptr || !((info->queues >> queue) & 1) || ((word0 >> 12) & 0xFF) != info->words || word0 >> 52 || word1 >> 60) {
    throw SimError("there is no instruction at byte " + std::to_string(offset));
  }
  const uint64_t bytes = info->words * uint64_t{8};
  if (bytes > end - offset) throw SimError("the code ends inside an instruction");
  Instr instr;
  instr.op = info->op;
  instr.queue = static_cast<Queue>(queue);
  instr.debug = static_cast<uint32_t>((word0 >> 20) & 0xFFFFFFFFu);
  instr.bytes = static_cast<uint32_t>(bytes);
  for (int i = 0; i < kMostWaits + kMostPosts; ++i) {
    const uint64_t pair = (word1 >> (12 * i)) & 0xFFF;
    const Semaphore s{static_cast<uint8_t>(pair & 0x3F), static_cast<uint8_t>(pair >> 6)};
    (i < kMostWaits ? instr.waits[i] : instr.posts[i - kMostWaits]) = s;
  }
  const uint8_t* words = reader.at(offset, bytes, "code");
  for (int i = 0; i < info->field_count; ++i) {
    const FieldInfo& field = info->fields[i];
    uint64_t value = bits_at(words, field.bit, field.bits);
    if (field.is_signed && (value >> (field.bits - 1))) value |= ~uint64_t{0} << field.bits;
    instr.f[i] = static_cast<int64_t>(value);
  }
  return instr;
}

std::vector<Instr> decode_core(const Reader& reader, uint64_t offset, uint64_t size) {
  std::vector<Instr> code;
  const uint64_t end = offset + size;
  constexpr uint64_t kUsualBytes = 64;
  code.reserve(size / kUsualBytes + 1);
  while (offset < end) {
    code.push_back(decode(reader, offset, end));
    offset += code.back().bytes;
  }
  return code;
}

std::vector<Binding> read_bindings(const Reader& reader, uint64_t offset, uint32_t count, const Program& program) {
  std::vector<Binding> found;
  for (uint32_t i = 0; i < count; ++i) {
    Binding b;
    b.region = reader.read<uint32_t>(offset + 24ull * i, "bindings");
    b.offset = reader.read<uint64_t>(offset + 24ull * i + 8, "bindings");
    b.size = reader.read<uint64_t>(offset + 24ull * i + 16, "bindings");
    if (b.region >= kRegions || b.offset > program.region_sizes[b.region] ||
        b.size > program.region_sizes[b.region] - b.offset) {
      throw SimError("an input or output leaves its region");
    }
    found.push_back(b);
  }
  return found;
}

void check_machine(const Machine& m) {
  for (int i = 0; i < kParameterCount; ++i) {
    if (!(m.values[i] >= kParameterLow[i] && m.values[i] <= kParameterHigh[i])) throw SimError("the machine record holds a number out of range");
  }
  if (m.load_queues() > 3 || m.sram_bytes() > (int64_t{1} << 26) || m.acc_bytes() > (int64_t{1} << 24)) throw SimError("the machine is larger than this simulator");
}

}  // namespace

const OpInfo* find_op(Op op) {
  static const auto table = [] {
    std::array<const OpInfo*, 256> found{};
    for (const OpInfo& info : kOps) found[static_cast<uint8_t>(info.op)] = &info;
    return found;
  }();
  return table[static_cast<uint8_t>(op)];
}

// Layout: targets/npu/container.py.
Program parse_program(const uint8_t* data, uint64_t size) {
  const Reader reader(data, size);
  if (size < 4 || std::memcmp(data, "GNPU", 4) != 0) throw SimError("this is not an NPU program");
  const auto major = reader.read<uint16_t>(4, "header"), minor = reader.read<uint16_t>(6, "header");
  if (major != kIsaMajor || minor > kIsaMinor) {
    throw SimError("the program needs ISA " + std::to_string(major) + "." + std::to_string(minor) + ", this simulator has " +
                   std::to_string(kIsaMajor) + "." + std::to_string(kIsaMinor));
  }
  Program program;
  const auto cores = reader.read<uint32_t>(40, "header"), parameters = reader.read<uint32_t>(44, "header");
  const auto inputs = reader.read<uint32_t>(48, "header"), outputs = reader.read<uint32_t>(52, "header");
  if (parameters != static_cast<uint32_t>(kParameterCount)) throw SimError("the machine record has another length");
  if (inputs > 65536 || outputs > 65536) throw SimError("the program has too many inputs or outputs");
  const auto machine_at = reader.read<uint64_t>(56, "header"), cores_at = reader.read<uint64_t>(64, "header");
  const auto constants_at = reader.read<uint64_t>(72, "header");
  program.constants_size = reader.read<uint64_t>(80, "header");
  const auto inputs_at = reader.read<uint64_t>(88, "header"), outputs_at = reader.read<uint64_t>(96, "header");
  for (int i = 0; i < kRegions; ++i) {
    program.region_sizes[i] = reader.read<uint64_t>(128 + 8ull * i, "header");
    if (program.region_sizes[i] > kMostBytes) throw SimError("a region is unreasonably large");
  }
  std::memcpy(program.machine.values.data(), reader.at(machine_at, 8ull * parameters, "machine record"), 8ull * parameters);
  check_machine(program.machine);
  if (cores < 1 || cores > static_cast<uint32_t>(program.machine.cores())) throw SimError("the program has code for more cores than there are");
  program.constants = reader.at(constants_at, program.constants_size, "constants");
  if (program.region_sizes[0] != program.constants_size) throw SimError("region 0 does not have the size of the constants");
  for (uint32_t i = 0; i < cores; ++i) {
    const auto offset = reader.read<uint64_t>(cores_at + 16ull * i, "core table");
    const auto length = reader.read<uint64_t>(cores_at + 16ull * i + 8, "core table");
    reader.at(offset, length, "code");
    program.cores.push_back(decode_core(reader, offset, length));
  }
  program.inputs = read_bindings(reader, inputs_at, inputs, program);
  program.outputs = read_bindings(reader, outputs_at, outputs, program);
  return program;
}

}  // namespace gadl::npu
