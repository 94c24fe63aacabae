// SPDX-License-Identifier: Apache-2.0
// LD, ST, FILL.
#include <algorithm>
#include <cstring>

#include "codec.hpp"
#include "core.hpp"

namespace gadl::npu {
namespace {

int64_t count(int64_t n) { return n == 0 ? 1 : n; }

void fill_pattern(uint8_t* out, int64_t size, int64_t value, int64_t element) {
  const auto pattern = static_cast<uint32_t>(value);
  const int64_t e = std::min<int64_t>(std::max<int64_t>(element, 1), 4);
  for (int64_t i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(pattern >> (8 * (i % e)));
}

void load(Core& core, const Instr& instr, const Region& region) {
  namespace F = ld;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t row = f(F::row_bytes), n1 = count(f(F::n1)), n2 = count(f(F::n2)), n3 = count(f(F::n3));
  const int64_t p1 = f(F::pad1_before), p2 = f(F::pad2_before);
  const int64_t t1 = n1 + p1 + f(F::pad1_after), t2 = n2 + p2 + f(F::pad2_after);
  const uint8_t* source = region.data;
  if (f(F::decode)) return decode_zb1(source + f(F::src), row, core.sram(f(F::dst)), f(F::decoded_bytes));
  if (f(F::transpose)) {
    // Elements of a row become a column: out[element][row].
    const int64_t e = f(F::elem_bytes), elements = row / e;
    for (int64_t k = 0; k < n3; ++k)
      for (int64_t j = 0; j < n2; ++j)
        for (int64_t i = 0; i < n1; ++i)
          for (int64_t x = 0; x < elements; ++x) {
            const int64_t block = (k * n2 + j) * n1 * row;
            std::memcpy(core.sram(f(F::dst) + block + (x * n1 + i) * e),
                        source + f(F::src) + i * f(F::src_s1) + j * f(F::src_s2) + k * f(F::src_s3) + x * e, e);
          }
    return;
  }
  for (int64_t k = 0; k < n3; ++k)
    for (int64_t j = 0; j < t2; ++j)
      for (int64_t i = 0; i < t1; ++i) {
        uint8_t* to = core.sram(f(F::dst) + i * f(F::dst_s1) + j * f(F::dst_s2) + k * f(F::dst_s3));
        if (i < p1 || i >= p1 + n1 || j < p2 || j >= p2 + n2) {
          fill_pattern(to, row, f(F::pad_value), f(F::elem_bytes));
        } else {
          std::memcpy(to, source + f(F::src) + (i - p1) * f(F::src_s1) + (j - p2) * f(F::src_s2) + k * f(F::src_s3), row);
        }
      }
}

void store(Core& core, const Instr& instr, const Region& region) {
  namespace F = st;
  const auto f = [&](int i) { return instr.f[i]; };
  const int64_t row = f(F::row_bytes), n1 = count(f(F::n1)), n2 = count(f(F::n2)), n3 = count(f(F::n3));
  for (int64_t k = 0; k < n3; ++k)
    for (int64_t j = 0; j < n2; ++j)
      for (int64_t i = 0; i < n1; ++i) {
        const uint8_t* from = core.sram(f(F::src) + i * f(F::src_s1) + j * f(F::src_s2) + k * f(F::src_s3));
        uint8_t* to = region.data + f(F::dst) + i * f(F::dst_s1) + j * f(F::dst_s2) + k * f(F::dst_s3);
        if (!f(F::accumulate)) {
          std::memcpy(to, from, row);
          continue;
        }
        for (int64_t b = 0; b + 4 <= row; b += 4) {
          uint32_t x, y;
          std::memcpy(&x, from + b, 4);
          std::memcpy(&y, to + b, 4);
          y += x;
          std::memcpy(to + b, &y, 4);
        }
      }
}

}  // namespace

void execute_movement(Core& core, const Instr& instr, const std::array<Region, kRegions>& regions) {
  if (instr.op == Op::LD) return load(core, instr, regions[instr.f[ld::src_region]]);
  if (instr.op == Op::ST) return store(core, instr, regions[instr.f[st::dst_region]]);
  fill_pattern(core.sram(instr.f[fill::dst]), instr.f[fill::size], instr.f[fill::value], instr.f[fill::elem_bytes]);
}

}  // namespace gadl::npu
