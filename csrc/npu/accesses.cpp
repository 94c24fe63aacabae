// SPDX-License-Identifier: Apache-2.0
// What every instruction reads and writes, as strided rows, checked against the memories.
#include <algorithm>
#include <string>

#include "core.hpp"
#include "error.hpp"

namespace gadl::npu {

int64_t checked_product(std::initializer_list<int64_t> factors, const char* what) {
  constexpr int64_t kMost = int64_t{1} << 32;
  int64_t product = 1;
  for (int64_t factor : factors) {
    if (__builtin_mul_overflow(product, factor, &product) || product > kMost) throw SimError(std::string(what) + " is unreasonably large");
  }
  return product;
}

namespace {

int64_t count(int64_t n) { return n == 0 ? 1 : n; }

using Dims = std::initializer_list<Access::Dim>;

// Collects accesses and checks them against the memories.
class Collector {
 public:
  Collector(const Instr& instr, const Extents& extents, std::vector<Access>& found) : instr_(instr), extents_(extents), found_(found) {}

  int64_t f(int field) const { return instr_.f[field]; }

  void sram(int64_t begin, int64_t row, bool write, Dims dims = {}) { add(Access::Space::kSram, 0, begin, row, write, dims); }
  void acc(int64_t begin, int64_t row, bool write) { add(Access::Space::kAcc, 0, begin, row, write, {}); }
  void dram(int64_t region, int64_t begin, int64_t row, bool write, Dims dims) { add(Access::Space::kDram, region, begin, row, write, dims); }

 private:
  void add(Access::Space space, int64_t region, int64_t begin, int64_t row, bool write, Dims dims);

  const Instr& instr_;
  const Extents& extents_;
  std::vector<Access>& found_;
};

// Normalises to positive strides, joins dimensions that continue a row, and keeps the widest stride first.
void Collector::add(Access::Space space, int64_t region, int64_t begin, int64_t row, bool write, Dims dims) {
  if (row <= 0) return;
  Access access;
  access.space = space;
  access.write = write;
  access.region = static_cast<uint8_t>(region);
  access.bytes = row;
  int used = 0;
  for (Access::Dim dim : dims) {
    dim.count = count(dim.count);
    access.bytes = checked_product({access.bytes, dim.count}, find_op(instr_.op)->name);
    if (dim.stride < 0) {
      begin += (dim.count - 1) * dim.stride;
      dim.stride = -dim.stride;
    }
    if (dim.count == 1 || dim.stride == 0) continue;
    if (used == 0 && dim.stride <= row) {
      row += (dim.count - 1) * dim.stride;
      continue;
    }
    int at = used++;
    for (; at > 0 && access.dims[at - 1].stride < dim.stride; --at) access.dims[at] = access.dims[at - 1];
    access.dims[at] = dim;
  }
  access.row = row;
  access.begin = begin;
  access.end = begin + row;
  for (int i = 0; i < used; ++i) access.end += (access.dims[i].count - 1) * access.dims[i].stride;
  const char* where = "SRAM";
  int64_t size = extents_.sram;
  if (space == Access::Space::kAcc) where = "the accumulators", size = extents_.acc;
  if (space == Access::Space::kDram) where = "its DRAM region", size = static_cast<int64_t>(extents_.regions[access.region]);
  if (access.begin < 0 || access.end > size) {
    throw SimError(std::string(find_op(instr_.op)->name) + " (debug " + std::to_string(instr_.debug) + ") leaves " + where + ": [" +
                   std::to_string(access.begin) + ", " + std::to_string(access.end) + ") of " + std::to_string(size));
  }
  found_.push_back(access);
}

void load_accesses(Collector& c) {
  namespace F = ld;
  if (c.f(F::row_bytes) == 0) throw SimError("LD: rows are empty");
  const int64_t row = c.f(F::row_bytes), n1 = count(c.f(F::n1)), n2 = count(c.f(F::n2)), n3 = count(c.f(F::n3));
  c.dram(c.f(F::src_region), c.f(F::src), row, false, {{n1, c.f(F::src_s1)}, {n2, c.f(F::src_s2)}, {n3, c.f(F::src_s3)}});
  if (c.f(F::decode)) {
    if (c.f(F::transpose) || n1 * n2 * n3 != 1 || c.f(F::decoded_bytes) == 0) throw SimError("LD: a compressed stream is one row, without transposition");
    return c.sram(c.f(F::dst), c.f(F::decoded_bytes), true);
  }
  if (c.f(F::transpose)) {
    const int64_t e = c.f(F::elem_bytes);
    if ((e != 1 && e != 2 && e != 4) || row % e) throw SimError("LD: a transpose needs whole elements of 1, 2 or 4 bytes");
    c.sram(c.f(F::dst), checked_product({row, n1, n2, n3}, "LD"), true);
    return;
  }
  const int64_t t1 = n1 + c.f(F::pad1_before) + c.f(F::pad1_after), t2 = n2 + c.f(F::pad2_before) + c.f(F::pad2_after);
  c.sram(c.f(F::dst), row, true, {{t1, c.f(F::dst_s1)}, {t2, c.f(F::dst_s2)}, {n3, c.f(F::dst_s3)}});
}

void store_accesses(Collector& c) {
  namespace F = st;
  if (c.f(F::row_bytes) == 0) throw SimError("ST: rows are empty");
  const int64_t row = c.f(F::row_bytes);
  const Access::Dim from[] = {{c.f(F::n1), c.f(F::src_s1)}, {c.f(F::n2), c.f(F::src_s2)}, {c.f(F::n3), c.f(F::src_s3)}};
  const Access::Dim to[] = {{c.f(F::n1), c.f(F::dst_s1)}, {c.f(F::n2), c.f(F::dst_s2)}, {c.f(F::n3), c.f(F::dst_s3)}};
  c.sram(c.f(F::src), row, false, {from[0], from[1], from[2]});
  if (c.f(F::dst_region) == 0) throw SimError("ST: region 0 holds constants");
  if (c.f(F::accumulate)) c.dram(c.f(F::dst_region), c.f(F::dst), row, false, {to[0], to[1], to[2]});
  c.dram(c.f(F::dst_region), c.f(F::dst), row, true, {to[0], to[1], to[2]});
}

// First and one past the last of `size` input rows (or columns) that `outputs` windows touch.
std::pair<int64_t, int64_t> touched(int64_t size, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  const int64_t first = std::max<int64_t>(0, -pad), last = (outputs - 1) * stride + (kernel - 1) * dilation - pad;
  return {first, std::min(size - 1, last) + 1};
}

// The window's fields are declared alike in MMA_CONV, MMA_DW and, behind its function, in VPOOL.
void window_access(Collector& c, int x_addr) {
  namespace F = mma_conv;
  const int shift = x_addr - F::x_addr;
  const auto f = [&](int field) { return c.f(field + shift); };
  const auto [y0, y1] = touched(f(F::ih), f(F::oh), f(F::kh), f(F::stride_h), f(F::dil_h), f(F::pad_top));
  const auto [x0, x1] = touched(f(F::iw), f(F::ow), f(F::kw), f(F::stride_w), f(F::dil_w), f(F::pad_left));
  if (y1 <= y0 || x1 <= x0) return;
  const int64_t row = f(F::x_row_stride), pixel = f(F::x_pix_stride);
  c.sram(f(F::x_addr) + y0 * row + x0 * pixel, f(F::ic) * type_bytes(f(F::x_type)), false, {{x1 - x0, pixel}, {y1 - y0, row}});
}

void check_weight_type(int64_t x_type, int64_t w_type) {
  const auto x = static_cast<Type>(x_type), w = static_cast<Type>(w_type);
  if (w_type > static_cast<int64_t>(Type::I4)) throw SimError("a product's weights have no known type");
  if (w == Type::I4 && x != Type::I8) throw SimError("i4 weights need i8 activations");
  if (is_float(x_type) != is_float(w_type)) throw SimError("a product mixes integers and floats");
}

void product_accesses(Collector& c, Op op) {
  int64_t cells = 0, acc_addr = 0, accumulate = 0;
  if (op == Op::MMA_MATMUL) {
    namespace F = mma_matmul;
    const int64_t xe = type_bytes(c.f(F::x_type)), batch = count(c.f(F::batch));
    const int64_t m = c.f(F::m), n = c.f(F::n), k = c.f(F::k);
    check_weight_type(c.f(F::x_type), c.f(F::w_type));
    if (m == 0 || n == 0 || k == 0) throw SimError("MMA_MATMUL: an extent is 0");
    const bool kn = c.f(F::b_kn) != 0;
    c.sram(c.f(F::a_addr), k * xe, false, {{m, c.f(F::a_stride)}, {batch, c.f(F::a_batch_stride)}});
    c.sram(c.f(F::b_addr), packed_bytes(kn ? n : k, c.f(F::w_type)), false, {{kn ? k : n, c.f(F::b_stride)}, {batch, c.f(F::b_batch_stride)}});
    cells = checked_product({batch, m, n}, "MMA_MATMUL"), acc_addr = c.f(F::acc_addr), accumulate = c.f(F::accumulate);
  } else {
    window_access(c, mma_conv::x_addr);
    const int64_t taps = c.f(mma_conv::kh) * c.f(mma_conv::kw), pixels = c.f(mma_conv::oh) * c.f(mma_conv::ow);
    if (taps * c.f(mma_conv::ic) * pixels == 0) throw SimError("a product's extent is 0");
    if (op == Op::MMA_CONV) {
      namespace F = mma_conv;
      check_weight_type(c.f(F::x_type), c.f(F::w_type));
      if (c.f(F::oc) == 0) throw SimError("MMA_CONV: an extent is 0");
      c.sram(c.f(F::w_addr), c.f(F::oc) * packed_bytes(taps * c.f(F::ic), c.f(F::w_type)), false);
      cells = checked_product({pixels, c.f(F::oc)}, "MMA_CONV"), acc_addr = c.f(F::acc_addr), accumulate = c.f(F::accumulate);
    } else {
      namespace F = mma_dw;
      check_weight_type(c.f(F::x_type), c.f(F::w_type));
      c.sram(c.f(F::w_addr), packed_bytes(c.f(F::ic), c.f(F::w_type)), false, {{taps, c.f(F::w_tap_stride)}});
      cells = checked_product({pixels, c.f(F::ic)}, "MMA_DW"), acc_addr = c.f(F::acc_addr), accumulate = c.f(F::accumulate);
    }
  }
  const int64_t bytes = cells * cell_bytes(c.f(op == Op::MMA_MATMUL ? static_cast<int>(mma_matmul::x_type) : static_cast<int>(mma_conv::x_type)));
  if (accumulate) c.acc(acc_addr, bytes, false);
  c.acc(acc_addr, bytes, true);
}

void drain_accesses(Collector& c) {
  namespace F = epi;
  const int64_t oh = c.f(F::oh), ow = c.f(F::ow), oc = c.f(F::oc), cell = cell_bytes(c.f(F::x_type));
  if (oh == 0 || ow == 0 || oc == 0) return;
  c.acc(c.f(F::acc_addr), oh * ow * oc * cell, false);
  if (c.f(F::bias)) c.sram(c.f(F::bias_addr), oc * cell, false);
  if (c.f(F::per_channel)) {
    c.sram(c.f(F::multiplier_addr), oc * 4, false);
    c.sram(c.f(F::shift_addr), oc, false);
  }
  if (c.f(F::per_row)) {
    c.sram(c.f(F::row_multiplier_addr), oh * ow * 4, false);
    c.sram(c.f(F::row_shift_addr), oh * ow, false);
  }
  if (c.f(F::activation) == static_cast<int64_t>(Activation::LUT)) c.sram(c.f(F::lut_addr), 256, false);
  if (c.f(F::residual)) {
    c.sram(c.f(F::res_addr), oc * type_bytes(c.f(F::res_type)), false, {{ow, c.f(F::res_pix_stride)}, {oh, c.f(F::res_row_stride)}});
  }
  const int64_t shrink = c.f(F::pool) ? 2 : 1;
  if (oh < shrink || ow < shrink) return;
  c.sram(c.f(F::out_addr), oc * type_bytes(c.f(F::out_type)), true,
         {{ow / shrink, c.f(F::out_pix_stride)}, {oh / shrink, c.f(F::out_row_stride)}});
}

void elementwise_accesses(Collector& c) {
  namespace F = vbin;
  const int64_t n[] = {c.f(F::n0), c.f(F::n1), c.f(F::n2), c.f(F::n3)};
  const auto side = [&](int address, int64_t e, int s0, int s1, int s2, int s3, bool write) {
    c.sram(c.f(address), e, write, {{n[0], c.f(s0) * e}, {n[1], c.f(s1) * e}, {n[2], c.f(s2) * e}, {n[3], c.f(s3) * e}});
  };
  side(F::a_addr, type_bytes(c.f(F::a_type)), F::a_s0, F::a_s1, F::a_s2, F::a_s3, false);
  side(F::b_addr, type_bytes(c.f(F::b_type)), F::b_s0, F::b_s1, F::b_s2, F::b_s3, false);
  if (static_cast<Binary>(c.f(F::function)) == Binary::SELECT) side(F::cond_addr, 1, F::cond_s0, F::cond_s1, F::cond_s2, F::cond_s3, false);
  side(F::out_addr, type_bytes(c.f(F::out_type)), F::out_s0, F::out_s1, F::out_s2, F::out_s3, true);
}

void pool_accesses(Collector& c) {
  namespace F = vpool;
  checked_product({c.f(F::oh), c.f(F::ow), c.f(F::ic), c.f(F::kh), c.f(F::kw)}, "VPOOL");
  window_access(c, F::x_addr);
  if (c.f(F::entries)) c.sram(c.f(F::table_addr), c.f(F::entries) * 8, false);
  if (c.f(F::oh) == 0 || c.f(F::ow) == 0) return;
  c.sram(c.f(F::out_addr), c.f(F::ic) * type_bytes(c.f(F::x_type)), true, {{c.f(F::ow), c.f(F::out_pix_stride)}, {c.f(F::oh), c.f(F::out_row_stride)}});
}

void resize_accesses(Collector& c) {
  namespace F = vrsz;
  const int64_t e = type_bytes(c.f(F::type)), oh = c.f(F::oh), ow = c.f(F::ow);
  if (oh == 0 || ow == 0 || c.f(F::ih) == 0 || c.f(F::iw) == 0) return;
  c.sram(c.f(F::x_addr), c.f(F::c) * e, false, {{c.f(F::iw), c.f(F::x_pix_stride)}, {c.f(F::ih), c.f(F::x_row_stride)}});
  c.sram(c.f(F::row_table), oh * 8, false);
  c.sram(c.f(F::col_table), ow * 8, false);
  c.sram(c.f(F::out_addr), c.f(F::c) * e, true, {{ow, c.f(F::out_pix_stride)}, {oh, c.f(F::out_row_stride)}});
}

void transpose_accesses(Collector& c) {
  namespace F = vtr;
  const int64_t e = c.f(F::elem_bytes);
  if (e != 1 && e != 2 && e != 4) throw SimError("VTR: elements have 1, 2 or 4 bytes");
  const int64_t n[] = {c.f(F::n0), c.f(F::n1), c.f(F::n2), c.f(F::n3)};
  c.sram(c.f(F::x_addr), e, false, {{n[0], c.f(F::x_s0)}, {n[1], c.f(F::x_s1)}, {n[2], c.f(F::x_s2)}, {n[3], c.f(F::x_s3)}});
  c.sram(c.f(F::out_addr), e, true, {{n[0], c.f(F::out_s0)}, {n[1], c.f(F::out_s1)}, {n[2], c.f(F::out_s2)}, {n[3], c.f(F::out_s3)}});
}

void reduce_accesses(Collector& c) {
  namespace F = vred;
  const int64_t e = type_bytes(c.f(F::type)), n = c.f(F::n), m = c.f(F::m);
  if (n == 0 || m == 0) return;
  c.sram(c.f(F::x_addr), e, false, {{n, c.f(F::n_stride) * e}, {m, c.f(F::m_stride) * e}});
  c.sram(c.f(F::out_addr), m * type_bytes(c.f(F::out_type)), true);
}

}  // namespace

void accesses(const Instr& instr, const Extents& extents, std::vector<Access>& found) {
  found.clear();
  Collector c(instr, extents, found);
  switch (instr.op) {
    case Op::LD: return load_accesses(c);
    case Op::ST: return store_accesses(c);
    case Op::FILL: return c.sram(c.f(fill::dst), c.f(fill::size), true);
    case Op::MMA_CONV: case Op::MMA_DW: case Op::MMA_MATMUL: return product_accesses(c, instr.op);
    case Op::EPI: return drain_accesses(c);
    case Op::VBIN: return elementwise_accesses(c);
    case Op::VUN:
      c.sram(c.f(vun::a_addr), c.f(vun::count) * type_bytes(c.f(vun::a_type)), false);
      return c.sram(c.f(vun::out_addr), c.f(vun::count) * type_bytes(c.f(vun::out_type)), true);
    case Op::VLUT:
      c.sram(c.f(vlut::a_addr), c.f(vlut::count) * type_bytes(c.f(vlut::a_type)), false);
      c.sram(c.f(vlut::table_addr), (static_cast<Type>(c.f(vlut::a_type)) == Type::I16 ? 513 : 256) * type_bytes(c.f(vlut::out_type)), false);
      return c.sram(c.f(vlut::out_addr), c.f(vlut::count) * type_bytes(c.f(vlut::out_type)), true);
    case Op::VRED: return reduce_accesses(c);
    case Op::VPOOL: return pool_accesses(c);
    case Op::VRSZ: return resize_accesses(c);
    case Op::VTR: return transpose_accesses(c);
    default: return;
  }
}

}  // namespace gadl::npu
