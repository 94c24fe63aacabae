// SPDX-License-Identifier: Apache-2.0
#include "core.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "error.hpp"
#include "half.hpp"

namespace gadl::npu {

int type_bytes(int64_t type) {
  static constexpr int kBytes[] = {1, 1, 2, 4, 8, 2, 2, 4, 1};
  return kBytes[std::min<int64_t>(type, 8)];
}

int64_t packed_bytes(int64_t count, int64_t type) {
  return static_cast<Type>(type) == Type::I4 ? (count + 1) / 2 : count * type_bytes(type);
}

int cell_bytes(int64_t x_type) { return static_cast<Type>(x_type) == Type::I16 ? 8 : 4; }

bool is_float(int64_t type) { return type >= static_cast<int64_t>(Type::F16) && type <= static_cast<int64_t>(Type::F32); }

int64_t load_integer(const uint8_t* p, int64_t type) {
  switch (static_cast<Type>(type)) {
    case Type::I8: return static_cast<int8_t>(*p);
    case Type::U8: return *p;
    case Type::I16: { int16_t v; std::memcpy(&v, p, 2); return v; }
    case Type::I32: { int32_t v; std::memcpy(&v, p, 4); return v; }
    case Type::I64: { int64_t v; std::memcpy(&v, p, 8); return v; }
    default: throw SimError("an integer was expected");
  }
}

void store_integer(uint8_t* p, int64_t type, int64_t value) {
  switch (static_cast<Type>(type)) {
    case Type::I8: case Type::U8: *p = static_cast<uint8_t>(value); return;
    case Type::I16: { const auto v = static_cast<int16_t>(value); std::memcpy(p, &v, 2); return; }
    case Type::I32: { const auto v = static_cast<int32_t>(value); std::memcpy(p, &v, 4); return; }
    case Type::I64: std::memcpy(p, &value, 8); return;
    default: throw SimError("an integer was expected");
  }
}

float load_float(const uint8_t* p, int64_t type) {
  uint16_t h;
  float f;
  switch (static_cast<Type>(type)) {
    case Type::F16: std::memcpy(&h, p, 2); return half_to_float(h);
    case Type::BF16: std::memcpy(&h, p, 2); return bfloat_to_float(h);
    case Type::F32: std::memcpy(&f, p, 4); return f;
    default: return static_cast<float>(load_integer(p, type));
  }
}

void store_float(uint8_t* p, int64_t type, float value) {
  uint16_t h;
  switch (static_cast<Type>(type)) {
    case Type::F16: h = float_to_half(value); std::memcpy(p, &h, 2); return;
    case Type::BF16: h = float_to_bfloat(value); std::memcpy(p, &h, 2); return;
    case Type::F32: std::memcpy(p, &value, 4); return;
    default: throw SimError("a float was expected");
  }
}

Core::Core(const Machine& machine) : sram_(machine.sram_bytes()), acc_(machine.acc_bytes()) {}

void Core::execute(const Instr& instr, const std::array<Region, kRegions>& regions) {
  switch (instr.op) {
    case Op::LD: case Op::ST: case Op::FILL: execute_movement(*this, instr, regions); return;
    case Op::MMA_CONV: case Op::MMA_DW: case Op::MMA_MATMUL: execute_product(*this, instr); return;
    case Op::EPI: execute_drain(*this, instr); return;
    case Op::VBIN: case Op::VUN: case Op::VLUT: case Op::VRED: case Op::VPOOL: case Op::VRSZ: case Op::VTR:
      execute_vector(*this, instr);
      return;
    default: return;
  }
}

}  // namespace gadl::npu
