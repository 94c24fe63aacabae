// SPDX-License-Identifier: Apache-2.0
#include "core.hpp"

#include <cstring>
#include <string>

#include "error.hpp"
#include "half.hpp"

namespace gadl::npu {

int type_bytes(int64_t type) {
  static constexpr int kBytes[] = {1, 1, 2, 4, 8, 2, 2, 4};
  return kBytes[type & 7];
}

int cell_bytes(int64_t x_type) { return static_cast<Type>(x_type) == Type::I16 ? 8 : 4; }

bool is_float(int64_t type) { return type >= static_cast<int64_t>(Type::F16); }

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

namespace {

// Collects accesses and checks them against the memories.
class Collector {
 public:
  Collector(const Core& core, const Instr& instr, const std::array<Region, kRegions>& regions, std::vector<Access>& found)
      : core_(core), instr_(instr), regions_(regions), found_(found) {}

  int64_t f(int field) const { return instr_.f[field]; }

  void sram(int64_t begin, int64_t length, bool write, int64_t bytes = -1) {
    add({Access::Space::kSram, write, 0, begin, begin + length, bytes < 0 ? length : bytes}, core_.sram_size(), "SRAM");
  }
  void acc(int64_t begin, int64_t length, bool write) {
    add({Access::Space::kAcc, write, 0, begin, begin + length, length}, core_.acc_size(), "the accumulators");
  }
  void dram(int64_t region, int64_t begin, int64_t length, bool write, int64_t bytes) {
    add({Access::Space::kDram, write, static_cast<uint8_t>(region), begin, begin + length, bytes},
        static_cast<int64_t>(regions_[region].size), "its DRAM region");
  }

 private:
  void add(const Access& access, int64_t size, const char* where) {
    if (access.begin == access.end) return;
    if (access.begin < 0 || access.end < access.begin || access.end > size) {
      throw SimError(std::string(find_op(instr_.op)->name) + " (debug " + std::to_string(instr_.debug) + ") leaves " + where +
                     ": [" + std::to_string(access.begin) + ", " + std::to_string(access.end) + ") of " + std::to_string(size));
    }
    found_.push_back(access);
  }

  const Core& core_;
  const Instr& instr_;
  const std::array<Region, kRegions>& regions_;
  std::vector<Access>& found_;
};

int64_t count(int64_t n) { return n == 0 ? 1 : n; }

// Hull of a strided block: offset of its first byte (negative strides) and length.
struct Hull {
  int64_t first = 0, length = 0;
  Hull(int64_t row, std::initializer_list<std::pair<int64_t, int64_t>> dims) : length(row) {
    for (const auto& [n, stride] : dims) {
      const int64_t reach = (count(n) - 1) * stride;
      if (reach < 0) first += reach;
      length += reach < 0 ? -reach : reach;
    }
  }
};

void window_accesses(Collector& c, int64_t element) {
  namespace F = mma_conv;
  if (c.f(F::ih) > 0 && c.f(F::iw) > 0) {
    const int64_t row = (c.f(F::iw) - 1) * c.f(F::x_pix_stride) + c.f(F::ic) * element;
    c.sram(c.f(F::x_addr), (c.f(F::ih) - 1) * c.f(F::x_row_stride) + row, false, c.f(F::ih) * c.f(F::iw) * c.f(F::ic) * element);
  }
}

void movement_accesses(Collector& c, Op op) {
  if (op == Op::LD) {
    namespace F = ld;
    const int64_t row = c.f(F::row_bytes);
    const int64_t rows = count(c.f(F::n1)) * count(c.f(F::n2)) * count(c.f(F::n3));
    const Hull from(row, {{c.f(F::n1), c.f(F::src_s1)}, {c.f(F::n2), c.f(F::src_s2)}, {c.f(F::n3), c.f(F::src_s3)}});
    c.dram(c.f(F::src_region), c.f(F::src) + from.first, from.length, false, rows * row);
    const int64_t n1 = count(c.f(F::n1)) + c.f(F::pad1_before) + c.f(F::pad1_after);
    const int64_t n2 = count(c.f(F::n2)) + c.f(F::pad2_before) + c.f(F::pad2_after);
    if (c.f(F::decode)) throw SimError("LD: compressed streams are not part of this ISA revision's programs");
    if (c.f(F::transpose)) {
      const int64_t e = c.f(F::elem_bytes);
      if ((e != 1 && e != 2 && e != 4) || row % e) throw SimError("LD: a transpose needs whole elements of 1, 2 or 4 bytes");
      c.sram(c.f(F::dst), rows * row, true);
    } else {
      const Hull to(row, {{n1, c.f(F::dst_s1)}, {n2, c.f(F::dst_s2)}, {c.f(F::n3), c.f(F::dst_s3)}});
      c.sram(c.f(F::dst) + to.first, to.length, true, n1 * n2 * count(c.f(F::n3)) * row);
    }
  } else if (op == Op::ST) {
    namespace F = st;
    const int64_t row = c.f(F::row_bytes);
    const int64_t rows = count(c.f(F::n1)) * count(c.f(F::n2)) * count(c.f(F::n3));
    const Hull from(row, {{c.f(F::n1), c.f(F::src_s1)}, {c.f(F::n2), c.f(F::src_s2)}, {c.f(F::n3), c.f(F::src_s3)}});
    const Hull to(row, {{c.f(F::n1), c.f(F::dst_s1)}, {c.f(F::n2), c.f(F::dst_s2)}, {c.f(F::n3), c.f(F::dst_s3)}});
    c.sram(c.f(F::src) + from.first, from.length, false, rows * row);
    if (c.f(F::dst_region) == 0) throw SimError("ST: region 0 holds constants");
    if (c.f(F::accumulate)) c.dram(c.f(F::dst_region), c.f(F::dst) + to.first, to.length, false, rows * row);
    c.dram(c.f(F::dst_region), c.f(F::dst) + to.first, to.length, true, rows * row);
  } else {
    c.sram(c.f(fill::dst), c.f(fill::size), true);
  }
}

void product_accesses(Collector& c, Op op) {
  if (op == Op::MMA_MATMUL) {
    namespace F = mma_matmul;
    const int64_t xe = type_bytes(c.f(F::x_type)), we = type_bytes(c.f(F::w_type)), batch = count(c.f(F::batch));
    if (c.f(F::m) * c.f(F::n) * c.f(F::k) == 0) return;
    const Hull a(c.f(F::k) * xe, {{c.f(F::m), c.f(F::a_stride)}, {batch, c.f(F::a_batch_stride)}});
    const bool kn = c.f(F::b_kn) != 0;
    const Hull b((kn ? c.f(F::n) : c.f(F::k)) * we, {{kn ? c.f(F::k) : c.f(F::n), c.f(F::b_stride)}, {batch, c.f(F::b_batch_stride)}});
    c.sram(c.f(F::a_addr), a.length, false, batch * c.f(F::m) * c.f(F::k) * xe);
    c.sram(c.f(F::b_addr), b.length, false, batch * c.f(F::n) * c.f(F::k) * we);
    const int64_t cells = batch * c.f(F::m) * c.f(F::n) * cell_bytes(c.f(F::x_type));
    if (c.f(F::accumulate)) c.acc(c.f(F::acc_addr), cells, false);
    c.acc(c.f(F::acc_addr), cells, true);
    return;
  }
  const int64_t element = type_bytes(c.f(mma_conv::x_type));
  window_accesses(c, element);
  int64_t cells = c.f(mma_conv::oh) * c.f(mma_conv::ow) * cell_bytes(c.f(mma_conv::x_type));
  const int64_t taps = c.f(mma_conv::kh) * c.f(mma_conv::kw);
  if (op == Op::MMA_CONV) {
    namespace F = mma_conv;
    c.sram(c.f(F::w_addr), c.f(F::oc) * taps * c.f(F::ic) * type_bytes(c.f(F::w_type)), false);
    cells *= c.f(F::oc);
    if (c.f(F::accumulate)) c.acc(c.f(F::acc_addr), cells, false);
    c.acc(c.f(F::acc_addr), cells, true);
  } else {
    namespace F = mma_dw;
    const int64_t row = c.f(F::ic) * type_bytes(c.f(F::w_type));
    if (taps > 0) c.sram(c.f(F::w_addr), (taps - 1) * c.f(F::w_tap_stride) + row, false, taps * row);
    cells *= c.f(F::ic);
    if (c.f(F::accumulate)) c.acc(c.f(F::acc_addr), cells, false);
    c.acc(c.f(F::acc_addr), cells, true);
  }
}

void drain_accesses(Collector& c) {
  namespace F = epi;
  const int64_t oh = c.f(F::oh), ow = c.f(F::ow), oc = c.f(F::oc), cell = cell_bytes(c.f(F::x_type));
  if (oh * ow * oc == 0) return;
  c.acc(c.f(F::acc_addr), oh * ow * oc * cell, false);
  if (c.f(F::bias)) c.sram(c.f(F::bias_addr), oc * cell, false);
  if (c.f(F::per_channel)) {
    c.sram(c.f(F::multiplier_addr), oc * 4, false);
    c.sram(c.f(F::shift_addr), oc, false);
  }
  if (c.f(F::activation) == static_cast<int64_t>(Activation::LUT)) c.sram(c.f(F::lut_addr), 256, false);
  if (c.f(F::residual)) {
    const int64_t e = type_bytes(c.f(F::res_type));
    c.sram(c.f(F::res_addr), (oh - 1) * c.f(F::res_row_stride) + (ow - 1) * c.f(F::res_pix_stride) + oc * e, false, oh * ow * oc * e);
  }
  const int64_t shrink = c.f(F::pool) ? 2 : 1, e = type_bytes(c.f(F::out_type));
  const int64_t rows = oh / shrink, columns = ow / shrink;
  if (rows * columns > 0) {
    c.sram(c.f(F::out_addr), (rows - 1) * c.f(F::out_row_stride) + (columns - 1) * c.f(F::out_pix_stride) + oc * e, true,
           rows * columns * oc * e);
  }
}

void vector_accesses(Collector& c, Op op) {
  switch (op) {
    case Op::VBIN: {
      namespace F = vbin;
      const int64_t n[] = {count(c.f(F::n0)), count(c.f(F::n1)), count(c.f(F::n2)), count(c.f(F::n3))};
      const auto side = [&](int address, int type, int s0, int s1, int s2, int s3, bool write) {
        const int64_t e = type_bytes(c.f(type));
        const Hull hull(e, {{n[0], c.f(s0) * e}, {n[1], c.f(s1) * e}, {n[2], c.f(s2) * e}, {n[3], c.f(s3) * e}});
        c.sram(c.f(address) + hull.first, hull.length, write);
      };
      side(F::a_addr, F::a_type, F::a_s0, F::a_s1, F::a_s2, F::a_s3, false);
      side(F::b_addr, F::b_type, F::b_s0, F::b_s1, F::b_s2, F::b_s3, false);
      side(F::out_addr, F::out_type, F::out_s0, F::out_s1, F::out_s2, F::out_s3, true);
      return;
    }
    case Op::VUN:
      c.sram(c.f(vun::a_addr), c.f(vun::count) * type_bytes(c.f(vun::a_type)), false);
      c.sram(c.f(vun::out_addr), c.f(vun::count) * type_bytes(c.f(vun::out_type)), true);
      return;
    case Op::VLUT:
      c.sram(c.f(vlut::a_addr), c.f(vlut::count) * type_bytes(c.f(vlut::a_type)), false);
      c.sram(c.f(vlut::table_addr), (static_cast<Type>(c.f(vlut::a_type)) == Type::I16 ? 513 : 256) * type_bytes(c.f(vlut::out_type)), false);
      c.sram(c.f(vlut::out_addr), c.f(vlut::count) * type_bytes(c.f(vlut::out_type)), true);
      return;
    case Op::VRED: {
      namespace F = vred;
      const int64_t e = type_bytes(c.f(F::type)), n = c.f(F::n), m = c.f(F::m);
      if (n * m == 0) return;
      c.sram(c.f(F::x_addr), ((n - 1) * c.f(F::n_stride) + (m - 1) * c.f(F::m_stride) + 1) * e, false, n * m * e);
      c.sram(c.f(F::out_addr), m * type_bytes(c.f(F::out_type)), true);
      return;
    }
    case Op::VPOOL: {
      namespace F = vpool;
      const int64_t e = type_bytes(c.f(F::x_type)), oh = c.f(F::oh), ow = c.f(F::ow);
      if (c.f(F::ih) > 0 && c.f(F::iw) > 0) {
        c.sram(c.f(F::x_addr), (c.f(F::ih) - 1) * c.f(F::x_row_stride) + (c.f(F::iw) - 1) * c.f(F::x_pix_stride) + c.f(F::ic) * e, false,
               c.f(F::ih) * c.f(F::iw) * c.f(F::ic) * e);
      }
      if (c.f(F::entries)) c.sram(c.f(F::table_addr), c.f(F::entries) * 8, false);
      if (oh * ow > 0) {
        c.sram(c.f(F::out_addr), (oh - 1) * c.f(F::out_row_stride) + (ow - 1) * c.f(F::out_pix_stride) + c.f(F::ic) * e, true,
               oh * ow * c.f(F::ic) * e);
      }
      return;
    }
    case Op::VRSZ: {
      namespace F = vrsz;
      const int64_t e = type_bytes(c.f(F::type)), oh = c.f(F::oh), ow = c.f(F::ow);
      if (oh * ow * c.f(F::ih) * c.f(F::iw) == 0) return;
      c.sram(c.f(F::x_addr), (c.f(F::ih) - 1) * c.f(F::x_row_stride) + (c.f(F::iw) - 1) * c.f(F::x_pix_stride) + c.f(F::c) * e, false,
             c.f(F::ih) * c.f(F::iw) * c.f(F::c) * e);
      c.sram(c.f(F::row_table), oh * 8, false);
      c.sram(c.f(F::col_table), ow * 8, false);
      c.sram(c.f(F::out_addr), (oh - 1) * c.f(F::out_row_stride) + (ow - 1) * c.f(F::out_pix_stride) + c.f(F::c) * e, true,
             oh * ow * c.f(F::c) * e);
      return;
    }
    default: {
      namespace F = vtr;
      const int64_t e = c.f(F::elem_bytes);
      if (e != 1 && e != 2 && e != 4) throw SimError("VTR: elements have 1, 2 or 4 bytes");
      const int64_t n[] = {count(c.f(F::n0)), count(c.f(F::n1)), count(c.f(F::n2)), count(c.f(F::n3))};
      const Hull x(e, {{n[0], c.f(F::x_s0)}, {n[1], c.f(F::x_s1)}, {n[2], c.f(F::x_s2)}, {n[3], c.f(F::x_s3)}});
      const Hull y(e, {{n[0], c.f(F::out_s0)}, {n[1], c.f(F::out_s1)}, {n[2], c.f(F::out_s2)}, {n[3], c.f(F::out_s3)}});
      c.sram(c.f(F::x_addr) + x.first, x.length, false, n[0] * n[1] * n[2] * n[3] * e);
      c.sram(c.f(F::out_addr) + y.first, y.length, true, n[0] * n[1] * n[2] * n[3] * e);
    }
  }
}

}  // namespace

void Core::accesses(const Instr& instr, const std::array<Region, kRegions>& regions, std::vector<Access>& found) const {
  found.clear();
  Collector c(*this, instr, regions, found);
  switch (instr.op) {
    case Op::LD: case Op::ST: case Op::FILL: movement_accesses(c, instr.op); return;
    case Op::MMA_CONV: case Op::MMA_DW: case Op::MMA_MATMUL: product_accesses(c, instr.op); return;
    case Op::EPI: drain_accesses(c); return;
    case Op::VBIN: case Op::VUN: case Op::VLUT: case Op::VRED: case Op::VPOOL: case Op::VRSZ: case Op::VTR:
      vector_accesses(c, instr.op);
      return;
    default: return;
  }
}

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
