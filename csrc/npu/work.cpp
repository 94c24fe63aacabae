// SPDX-License-Identifier: Apache-2.0
#include "work.hpp"

#include <algorithm>

#include "error.hpp"

namespace gadl::npu {
namespace {

int64_t count(int64_t n) { return n == 0 ? 1 : n; }

struct Product {
  int64_t batch, pixels, oc, ic, kh, kw;
  Type type;
  bool depthwise;
};

// The type that sets the rate: i8 activations with i4 weights have one of their own.
Type rate_type(int64_t x_type, int64_t w_type) { return static_cast<Type>(static_cast<Type>(w_type) == Type::I4 ? w_type : x_type); }

Product product_of(const Instr& instr) {
  const auto& f = instr.f;
  if (instr.op == Op::MMA_MATMUL) {
    namespace F = mma_matmul;
    return {count(f[F::batch]), f[F::m], f[F::n], f[F::k], 1, 1, rate_type(f[F::x_type], f[F::w_type]), false};
  }
  namespace F = mma_conv;  // MMA_DW has the same fields up to the weights
  const bool depthwise = instr.op == Op::MMA_DW;
  const Type type = rate_type(f[F::x_type], f[depthwise ? static_cast<int>(mma_dw::w_type) : static_cast<int>(F::w_type)]);
  return {1, f[F::oh] * f[F::ow], depthwise ? f[F::ic] : f[F::oc], depthwise ? 1 : f[F::ic], f[F::kh], f[F::kw], type, depthwise};
}

void array_cost(const Instr& instr, const Machine& m, Work& work) {
  const Product p = product_of(instr);
  const Type type = p.type;
  work.unit = kArray;
  work.macs = static_cast<uint64_t>(p.batch * p.pixels * p.oc) * static_cast<uint64_t>(p.ic * p.kh * p.kw);
  work.work = static_cast<double>(p.batch) * (p.depthwise ? depthwise_cycles(m, p.pixels, p.oc, p.kh * p.kw, type)
                                                          : conv_cycles(m, p.pixels, p.oc, p.ic, p.kh, p.kw, type));
  if (m[Parameter::mma_shadow] == 0 && m.integer(Parameter::mma_flow) == static_cast<int64_t>(Flow::kStream)) {
    work.work = std::max(work.work, m[Parameter::mma_reload]);
  }
  if (!p.depthwise && is_shadowed(m)) {
    // The first fold's reload hides behind the instruction before, if its weights differ from that one's.
    work.last_fold = shadowed_fold_cycles(m, p.pixels, type);
    work.work += work.last_fold - shadowed_fold_reload_cycles(m, p.pixels, type);
  }
  work.work = std::max(work.work, m[Parameter::mma_issue]);
  work.issue = m[Parameter::mma_issue];
  work.mac_cycles = static_cast<double>(work.macs) / (peak_macs(m, p.depthwise) * mma_rate(m, type));
}

double vector_cost(const Instr& instr, const Machine& m) {
  const auto& f = instr.f;
  switch (instr.op) {
    case Op::VBIN: {
      namespace F = vbin;
      const int64_t n = count(f[F::n0]) * count(f[F::n1]) * count(f[F::n2]) * count(f[F::n3]);
      return vector_cycles(m, n, std::max({type_bytes(f[F::a_type]), type_bytes(f[F::b_type]), type_bytes(f[F::out_type])}));
    }
    case Op::VUN: {
      namespace F = vun;
      const auto function = static_cast<Unary>(f[F::function]);
      if (function >= Unary::EXP2 && function <= Unary::COS) return special_cycles(m, f[F::count]);
      return vector_cycles(m, f[F::count], std::max(type_bytes(f[F::a_type]), type_bytes(f[F::out_type])));
    }
    case Op::VLUT:
      if (static_cast<Type>(f[vlut::a_type]) == Type::I16) return special_cycles(m, f[vlut::count]);
      return vector_cycles(m, f[vlut::count], type_bytes(f[vlut::out_type]));
    case Op::VRED: return vector_cycles(m, f[vred::n] * f[vred::m], type_bytes(f[vred::type]));
    case Op::VPOOL: {
      namespace F = vpool;
      return vector_cycles(m, f[F::oh] * f[F::ow] * f[F::ic] * f[F::kh] * f[F::kw], type_bytes(f[F::x_type]));
    }
    case Op::VRSZ: {
      namespace F = vrsz;
      return vector_cycles(m, f[F::oh] * f[F::ow] * f[F::c] * (f[F::nearest] ? 1 : 4), type_bytes(f[F::type]));
    }
    case Op::VTR: {
      namespace F = vtr;
      return vector_cycles(m, count(f[F::n0]) * count(f[F::n1]) * count(f[F::n2]) * count(f[F::n3]), f[F::elem_bytes]);
    }
    default: return 0;
  }
}

// One DMA transfer: the DRAM side decides its cost.
void transfer_cost(const Instr& instr, const Machine& m, Work& work) {
  const bool store = instr.op == Op::ST;
  const Access* dram = nullptr;
  for (const Access& access : work.accesses)
    if (access.space == Access::Space::kDram && access.write == store) dram = &access;
  work.dma = true;
  work.store = store;
  work.fixed = dma_fixed_cycles(m, 0, store);
  if (dram == nullptr) return;
  const int64_t rows = dram->bytes / dram->row;
  int64_t stride = dram->row;  // of the innermost dimension that is not joined
  for (const Access::Dim& dim : dram->dims)
    if (dim.count > 1) stride = dim.stride;
  // A read-modify-write moves its bytes twice.
  const int64_t passes = store && instr.f[st::accumulate] ? 2 : 1;
  work.work = static_cast<double>(passes * burst_bytes(m, rows, dram->row, dram->begin));
  work.fixed = dma_fixed_cycles(m, page_crossings(m, dram->begin, rows, dram->row, stride), store);
  if (!store && instr.f[ld::multicast]) {
    if (m[Parameter::noc_multicast] == 0 || m[Parameter::noc_bytes_per_cycle] <= 0) throw SimError("the machine has no multicast");
    if (instr.f[ld::multicast] >> m.cores()) throw SimError("a multicast names a core that is not there");
    work.multicast = true;
    work.fixed += m[Parameter::noc_latency];
  }
}

void add_traffic(const Instr& instr, Work& work) {
  for (const Access& access : work.accesses) {
    const auto bytes = static_cast<uint64_t>(access.bytes);
    if (access.space == Access::Space::kDram) {
      (access.write ? work.dram_written : work.dram_read) += bytes;
      work.region = access.region;
    }
    if (access.space == Access::Space::kSram && access.write) work.sram_end = std::max(work.sram_end, access.end);
  }
  if (instr.op == Op::CALLC) {
    work.dram_read = static_cast<uint64_t>(instr.f[callc::bytes_in]);
    work.dram_written = static_cast<uint64_t>(instr.f[callc::bytes_out]);
  }
}

void add_demand(const Instr& instr, const Machine& m, Work& work) {
  const int64_t groups = m.integer(Parameter::sram_groups), size = std::max<int64_t>(1, m.sram_bytes() / groups);
  if (work.work <= 0) return;
  int64_t passes = 1;
  if (instr.op == Op::MMA_CONV) passes = ceil_div(instr.f[mma_conv::oc], m.integer(Parameter::mma_shape_1));
  if (instr.op == Op::MMA_MATMUL) passes = ceil_div(instr.f[mma_matmul::n], m.integer(Parameter::mma_shape_1));
  bool first = true;
  for (const Access& access : work.accesses) {
    if (access.space != Access::Space::kSram) continue;
    // The first operand of a product is read once per block of output channels; the weights stay in the array.
    const double rate = static_cast<double>(access.bytes * (first ? passes : 1)) / work.work;
    first = false;
    const int64_t low_group = access.begin / size, high_group = std::min((access.end - 1) / size, groups - 1);
    for (int64_t g = low_group; g <= high_group; ++g) {
      const int64_t low = std::max(access.begin, g * size), high = std::min(access.end, (g + 1) * size);
      const double part = static_cast<double>(high - low) / static_cast<double>(access.end - access.begin);
      const auto same = std::find_if(work.demand.begin(), work.demand.end(), [&](const Demand& d) { return d.group == g; });
      if (same == work.demand.end()) {
        work.demand.push_back({static_cast<int>(g), rate * part});
      } else {
        same->bytes += rate * part;
      }
    }
  }
  for (const Demand& demand : work.demand) work.heaviest = std::max(work.heaviest, demand.bytes);
}

}  // namespace

bool conflict(const Work& one, const Work& other) {
  for (const Access& a : one.accesses)
    for (const Access& b : other.accesses)
      if (a.begin < b.end && b.begin < a.end && a.space == b.space && a.region == b.region && (a.write || b.write)) return true;
  return false;
}

void make_work(const Instr& instr, const Machine& machine, const Extents& extents, Work& work) {
  auto demand = std::move(work.demand);
  auto found = std::move(work.accesses);
  work = Work{};
  demand.clear();
  work.demand = std::move(demand);
  found.reserve(4);
  accesses(instr, extents, found);
  work.accesses = std::move(found);
  work.computed = true;
  work.unit = static_cast<Unit>(instr.queue);
  switch (instr.op) {
    case Op::LD: case Op::ST: transfer_cost(instr, machine, work); break;
    case Op::FILL:
      work.fixed = machine[Parameter::dma_issue];
      work.work = static_cast<double>(ceil_div(instr.f[fill::size], machine.integer(Parameter::sram_bank_bytes)));
      break;
    case Op::MMA_CONV: case Op::MMA_DW: case Op::MMA_MATMUL: array_cost(instr, machine, work); break;
    case Op::EPI:
      work.unit = kDrain;
      work.work = drain_cycles(machine, instr.f[epi::oh] * instr.f[epi::ow] * instr.f[epi::oc]);
      break;
    case Op::CALLC:
      work.dma = true;
      work.work = static_cast<double>(instr.f[callc::bytes_in] + instr.f[callc::bytes_out]);
      break;
    case Op::WAIT: case Op::POST: case Op::PROF: case Op::BAR: work.marker = true; break;
    default:
      work.fixed = machine[Parameter::vec_issue];
      work.work = work.vector_cycles = vector_cost(instr, machine);
      break;
  }
  add_traffic(instr, work);
  add_demand(instr, machine, work);
}

}  // namespace gadl::npu
