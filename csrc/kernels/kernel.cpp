// SPDX-License-Identifier: Apache-2.0
#include "kernel.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "half.hpp"

namespace gadl {

int64_t TensorInfo::element_bytes() const {
  static constexpr int64_t kBytes[] = {4, 2, 2, 8, 1, 1, 2, 4, 8, 1};
  return kBytes[dtype];
}

const Attribute* Attributes::find(const char* name) const {
  for (const Attribute& item : items)
    if (item.name == name) return &item;
  return nullptr;
}

int64_t Attributes::integer(const char* name, int64_t otherwise) const {
  const Attribute* a = find(name);
  return a != nullptr && a->kind == GADL_ATTR_INT ? a->integer : otherwise;
}

double Attributes::real(const char* name, double otherwise) const {
  const Attribute* a = find(name);
  if (a == nullptr) return otherwise;
  return a->kind == GADL_ATTR_FLOAT ? a->real : a->kind == GADL_ATTR_INT ? static_cast<double>(a->integer) : otherwise;
}

std::string Attributes::text(const char* name, const char* otherwise) const {
  const Attribute* a = find(name);
  return a != nullptr && a->kind == GADL_ATTR_STR ? a->text : otherwise;
}

std::vector<int64_t> Attributes::ints(const char* name, bool required) const {
  const Attribute* a = find(name);
  if (a == nullptr || a->kind != GADL_ATTR_INTS) {
    if (required) throw ModelError(std::string("attribute '") + name + "' is missing");
    return {};
  }
  return a->ints;
}

std::vector<double> Attributes::reals(const char* name) const {
  const Attribute* a = find(name);
  if (a == nullptr) return {};
  if (a->kind == GADL_ATTR_FLOATS) return a->reals;
  return {a->ints.begin(), a->ints.end()};
}

const Requant* Attributes::requant(const char* name) const {
  const Attribute* a = find(name);
  return a != nullptr && a->kind == GADL_ATTR_REQUANTS && !a->requants.empty() ? &a->requants[0] : nullptr;
}

const TensorInfo& Call::input(std::size_t index) const {
  if (index >= in.size() || in[index] == nullptr) throw ModelError("'" + op + "' lacks an operand");
  return *in[index];
}

void fail(const Call& call, const std::string& what) {
  const std::string where = call.out.empty() ? "" : " (" + call.out[0]->name + ")";
  throw ModelError("'" + call.op + "'" + where + ": " + what);
}

void require(bool condition, const Call& call, const char* what) {
  if (!condition) fail(call, what);
}

int axis_of(const Call& call, int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) fail(call, "an axis is out of range");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

float load_real(const uint8_t* p, gadl_dtype type) {
  switch (type) {
    case GADL_DTYPE_F32: { float v; std::memcpy(&v, p, 4); return v; }
    case GADL_DTYPE_F64: { double v; std::memcpy(&v, p, 8); return static_cast<float>(v); }
    case GADL_DTYPE_F16: { uint16_t v; std::memcpy(&v, p, 2); return npu::half_to_float(v); }
    case GADL_DTYPE_BF16: { uint16_t v; std::memcpy(&v, p, 2); return npu::bfloat_to_float(v); }
    default: return static_cast<float>(load_whole(p, type));
  }
}

void store_real(uint8_t* p, gadl_dtype type, float value) {
  switch (type) {
    case GADL_DTYPE_F32: std::memcpy(p, &value, 4); return;
    case GADL_DTYPE_F64: { const double v = value; std::memcpy(p, &v, 8); return; }
    case GADL_DTYPE_F16: { const uint16_t v = npu::float_to_half(value); std::memcpy(p, &v, 2); return; }
    case GADL_DTYPE_BF16: { const uint16_t v = npu::float_to_bfloat(value); std::memcpy(p, &v, 2); return; }
    default: store_whole(p, type, to_whole(value)); return;
  }
}

int64_t load_whole(const uint8_t* p, gadl_dtype type) {
  switch (type) {
    case GADL_DTYPE_I8: return static_cast<int8_t>(*p);
    case GADL_DTYPE_U8: return *p;
    case GADL_DTYPE_BOOL: return *p != 0;
    case GADL_DTYPE_I16: { int16_t v; std::memcpy(&v, p, 2); return v; }
    case GADL_DTYPE_I32: { int32_t v; std::memcpy(&v, p, 4); return v; }
    case GADL_DTYPE_I64: { int64_t v; std::memcpy(&v, p, 8); return v; }
    default: return to_whole(load_real(p, type));
  }
}

void store_whole(uint8_t* p, gadl_dtype type, int64_t value) {
  switch (type) {
    case GADL_DTYPE_I8: case GADL_DTYPE_U8: *p = static_cast<uint8_t>(value); return;
    case GADL_DTYPE_BOOL: *p = value != 0; return;
    case GADL_DTYPE_I16: { const auto v = static_cast<int16_t>(value); std::memcpy(p, &v, 2); return; }
    case GADL_DTYPE_I32: { const auto v = static_cast<int32_t>(value); std::memcpy(p, &v, 4); return; }
    case GADL_DTYPE_I64: std::memcpy(p, &value, 8); return;
    default: store_real(p, type, static_cast<float>(value)); return;
  }
}

void integer_range(gadl_dtype type, int64_t& low, int64_t& high) {
  switch (type) {
    case GADL_DTYPE_I8: low = -128; high = 127; return;
    case GADL_DTYPE_U8: low = 0; high = 255; return;
    case GADL_DTYPE_BOOL: low = 0; high = 1; return;
    case GADL_DTYPE_I16: low = INT16_MIN; high = INT16_MAX; return;
    case GADL_DTYPE_I32: low = INT32_MIN; high = INT32_MAX; return;
    default: low = INT64_MIN; high = INT64_MAX; return;
  }
}

Bounds bounds_of(const Call& call) {
  Bounds b{-std::numeric_limits<float>::infinity(), std::numeric_limits<float>::infinity(), 0, 0};
  integer_range(call.result().dtype, b.integer_low, b.integer_high);
  const std::vector<double> clamp = call.attrs.reals("clamp");
  if (clamp.size() == 2) {
    b.low = static_cast<float>(clamp[0]);
    b.high = static_cast<float>(clamp[1]);
    if (!call.result().is_float()) {
      const auto within = [](double bound) { return static_cast<int64_t>(std::min(std::max(-9e18, bound), 9e18)); };
      b.integer_low = std::max(b.integer_low, within(clamp[0]));
      b.integer_high = std::min(b.integer_high, within(clamp[1]));
    }
  }
  return b;
}

std::vector<int64_t> broadcast_strides(const std::vector<int64_t>& dims, const std::vector<int64_t>& full) {
  std::vector<int64_t> strides(full.size(), 0);
  int64_t step = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const std::size_t from = dims.size() - 1 - i, to = full.size() - 1 - i;
    if (from >= dims.size() || to >= full.size() || (dims[from] != full[to] && dims[from] != 1)) {
      throw ModelError("shapes do not broadcast");
    }
    strides[to] = dims[from] == 1 ? 0 : step;
    step *= dims[from];
  }
  return strides;
}

namespace {

// One channel, or one pixel: channels innermost is then the logical order too.
bool in_order(const TensorInfo& t) {
  if (t.layout == GADL_LAYOUT_ROW_MAJOR || t.rank() < 3 || t.dims[1] == 1) return true;
  return std::all_of(t.dims.begin() + 2, t.dims.end(), [](int64_t d) { return d == 1; });
}

// Kernels read rows in order; other layouts pass only where element i of the result depends on element i of the one operand.
void check_layouts(const Call& call) {
  if (call.op == "relayout") return;
  bool plain = true, one = call.in.size() == 1 && call.out.size() == 1;
  for (const TensorInfo* t : call.in) plain = plain && (t == nullptr || in_order(*t));
  for (const TensorInfo* t : call.out) plain = plain && in_order(*t);
  if (plain) return;
  one = one && call.in[0] != nullptr && call.in[0]->layout == call.out[0]->layout && call.in[0]->scales.size() < 2 && call.out[0]->scales.size() < 2;
  for (const KernelTable* table : {&elementwise_kernels(), &quantization_kernels()}) {
    for (const KernelEntry& entry : *table)
      if (one && call.op == entry.name) return;
  }
  fail(call, "this memory layout needs a 'relayout' first");
}

void check_requants(const Call& call) {
  for (const Attribute& a : call.attrs.items) {
    for (const Requant& r : a.requants) {
      require(!r.multiplier.empty() && r.multiplier.size() == r.shift.size(), call, "multipliers and shifts differ in number");
      require(r.rounding <= npu::Round::F32, call, "the rounding is not known");
      for (int8_t shift : r.shift) require(shift >= 1 && shift <= 62, call, "a shift is out of range");
    }
    // Sums of wider operands would not fit; a bias (operand 2) may be wider.
    for (std::size_t i = 0; i < call.in.size() && i < 2 && !a.requants.empty(); ++i) {
      const TensorInfo* t = call.in[i];
      require(t == nullptr || (!t->is_float() && t->element_bytes() <= 4), call, "operands of a requantisation are integers of at most 32 bits");
    }
  }
}

}  // namespace

Prepared prepare_kernel(const Call& call) {
  const Prepare prepare = find_kernel(call.op);
  require(!call.out.empty() && call.out[0] != nullptr, call, "there is no result");
  check_layouts(call);
  check_requants(call);
  return prepare(call);
}

Prepare find_kernel(const std::string& name) {
  for (const KernelTable* table : {&elementwise_kernels(), &product_kernels(), &pooling_kernels(), &reduction_kernels(),
                                   &normalization_kernels(), &movement_kernels(), &quantization_kernels()}) {
    for (const KernelEntry& entry : *table)
      if (name == entry.name) return entry.prepare;
  }
  throw ModelError("this runtime has no kernel for '" + name + "'");
}

}  // namespace gadl
