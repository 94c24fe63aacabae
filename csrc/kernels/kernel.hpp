// SPDX-License-Identifier: Apache-2.0
// Host kernels: an op is prepared once, with everything checked, and then run without checks or allocation.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "gadl/artifact_format.h"
#include "isa_generated.h"

namespace gadl {

// A model that cannot run: caught where the C ABI begins.
class ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct TensorInfo {
  std::string name;
  gadl_dtype dtype = GADL_DTYPE_F32;
  gadl_layout layout = GADL_LAYOUT_ROW_MAJOR;
  std::vector<int64_t> dims;
  std::vector<double> scales;
  int32_t zero_point = 0;
  int32_t axis = -1;

  int rank() const { return static_cast<int>(dims.size()); }
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : dims) n *= d;
    return n;
  }
  int64_t element_bytes() const;
  int64_t bytes() const { return elements() * element_bytes(); }
  bool is_float() const { return dtype <= GADL_DTYPE_F64; }
};

struct Requant {
  npu::Round rounding = npu::Round::UP;
  std::vector<int32_t> multiplier;
  std::vector<int8_t> shift;
};

struct Attribute {
  std::string name;
  gadl_attr kind = GADL_ATTR_INT;
  int64_t integer = 0;
  double real = 0;
  std::string text;
  std::vector<int64_t> ints;
  std::vector<double> reals;
  gadl_dtype dtype = GADL_DTYPE_F32;
  std::vector<uint8_t> bytes;
  std::vector<Requant> requants;
};

class Attributes {
 public:
  std::vector<Attribute> items;

  const Attribute* find(const char* name) const;
  int64_t integer(const char* name, int64_t otherwise) const;
  double real(const char* name, double otherwise) const;
  std::string text(const char* name, const char* otherwise) const;
  // The list must be there (`required`), or is empty.
  std::vector<int64_t> ints(const char* name, bool required = true) const;
  std::vector<double> reals(const char* name) const;
  const Requant* requant(const char* name) const;
};

// What a kernel is prepared from. Operands that are absent are null.
struct Call {
  std::string op;
  Attributes attrs;
  std::vector<const TensorInfo*> in, out;

  const TensorInfo& input(std::size_t index) const;
  const TensorInfo* optional(std::size_t index) const { return index < in.size() ? in[index] : nullptr; }
  const TensorInfo& result() const { return *out.at(0); }
};

using Inputs = const uint8_t* const*;
using Outputs = uint8_t* const*;

struct Prepared {
  std::function<void(Inputs, Outputs, uint8_t* scratch)> run;
  std::size_t scratch_bytes = 0;
};

using Prepare = Prepared (*)(const Call&);

struct KernelEntry {
  const char* name;
  Prepare prepare;
};

// One table per file; `find_kernel` looks through all of them.
using KernelTable = std::vector<KernelEntry>;
const KernelTable& elementwise_kernels();
const KernelTable& product_kernels();
const KernelTable& pooling_kernels();
const KernelTable& reduction_kernels();
const KernelTable& normalization_kernels();
const KernelTable& movement_kernels();
const KernelTable& quantization_kernels();
Prepare find_kernel(const std::string& name);
// Finds the kernel of `call.op`, checks what every kernel relies on (layouts, requantisations) and prepares it.
Prepared prepare_kernel(const Call& call);

[[noreturn]] void fail(const Call& call, const std::string& what);
void require(bool condition, const Call& call, const char* what);
int axis_of(const Call& call, int64_t axis, int rank);

// Elements as f32 or i64, whatever the type; bool counts as an integer.
float load_real(const uint8_t* p, gadl_dtype type);
void store_real(uint8_t* p, gadl_dtype type, float value);
int64_t load_whole(const uint8_t* p, gadl_dtype type);
void store_whole(uint8_t* p, gadl_dtype type, int64_t value);
// Sums and products of any bytes: in a sound model they fit, in a hostile one they wrap.
inline int64_t wrapping_add(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b)); }
inline int64_t wrapping_sub(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b)); }
inline int64_t wrapping_mul(int64_t a, int64_t b) { return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b)); }
// Towards zero; NaN and what is outside i64 become 0, so that every processor agrees.
inline int64_t to_whole(double value) { return value >= -0x1p63 && value < 0x1p63 ? static_cast<int64_t>(value) : 0; }
void integer_range(gadl_dtype type, int64_t& low, int64_t& high);

// The `clamp` attribute, or the widest bounds of the result's type.
struct Bounds {
  float low, high;
  int64_t integer_low, integer_high;
};
Bounds bounds_of(const Call& call);

// Row-major strides in elements, 0 where `dims` (aligned at the end) broadcasts against `full`.
std::vector<int64_t> broadcast_strides(const std::vector<int64_t>& dims, const std::vector<int64_t>& full);

// Calls `row(offsets...)` for every innermost row of `dims`; offsets are in elements per operand.
template <std::size_t N, class Row>
void for_rows(const std::vector<int64_t>& dims, const std::array<std::vector<int64_t>, N>& strides, Row row) {
  const int rank = static_cast<int>(dims.size());
  int64_t outer = 1;
  for (int i = 0; i + 1 < rank; ++i) outer *= dims[i];
  int64_t index[GADL_MOST_DIMS] = {};
  int64_t offset[N] = {};
  for (int64_t n = 0; n < outer; ++n) {
    row(static_cast<const int64_t*>(offset));
    for (int i = rank - 2; i >= 0; --i) {
      for (std::size_t k = 0; k < N; ++k) offset[k] += strides[k][i];
      if (++index[i] < dims[i]) break;
      for (std::size_t k = 0; k < N; ++k) offset[k] -= strides[k][i] * dims[i];
      index[i] = 0;
    }
  }
}

}  // namespace gadl
