// SPDX-License-Identifier: Apache-2.0
// Ops that move or select elements. Most are one copy between two strided views.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernel.hpp"

namespace gadl {
namespace {

using Dims = std::vector<int64_t>;

Dims strides_of(const Dims& dims) {
  Dims strides(dims.size());
  int64_t step = 1;
  for (std::size_t i = dims.size(); i-- > 0; step *= dims[i]) strides[i] = step;
  return strides;
}

void same_type(const Call& call) { require(call.input(0).dtype == call.result().dtype, call, "element types differ"); }

// Elements of `dims` from one strided view to another; offsets and strides in elements, read strides may be 0 or negative.
class Copy {
 public:
  Copy(const Dims& dims, const Dims& from, const Dims& to, int64_t from_offset, int64_t to_offset, int64_t element_bytes)
      : from_offset_(from_offset), to_offset_(to_offset), bytes_(element_bytes) {
    for (std::size_t i = 0; i < dims.size(); ++i) {
      empty_ = empty_ || dims[i] == 0;
      if (dims[i] == 1) continue;
      // Axes that follow on in both views become one.
      if (!dims_.empty() && from_.back() == from[i] * dims[i] && to_.back() == to[i] * dims[i]) {
        dims_.back() *= dims[i];
        from_.back() = from[i];
        to_.back() = to[i];
      } else {
        dims_.push_back(dims[i]);
        from_.push_back(from[i]);
        to_.push_back(to[i]);
      }
    }
    if (dims_.empty()) dims_ = from_ = to_ = {1};
  }

  void run(const uint8_t* from, uint8_t* to) const {
    if (empty_) return;
    const int rank = static_cast<int>(dims_.size());
    int64_t index[2 * GADL_MOST_DIMS] = {}, a = from_offset_, b = to_offset_;
    while (true) {
      row(from + a * bytes_, to + b * bytes_);
      int i = rank - 2;
      for (; i >= 0; --i) {
        a += from_[i];
        b += to_[i];
        if (++index[i] < dims_[i]) break;
        a -= from_[i] * dims_[i];
        b -= to_[i] * dims_[i];
        index[i] = 0;
      }
      if (i < 0) return;
    }
  }

 private:
  template <class E>
  void elements(const uint8_t* from, uint8_t* to) const {
    const int64_t n = dims_.back(), f = from_.back(), t = to_.back();
    const auto* p = reinterpret_cast<const E*>(from);
    auto* q = reinterpret_cast<E*>(to);
    for (int64_t i = 0; i < n; ++i) q[i * t] = p[i * f];
  }

  void row(const uint8_t* from, uint8_t* to) const {
    if (from_.back() == 1 && to_.back() == 1) {
      std::memcpy(to, from, static_cast<std::size_t>(dims_.back() * bytes_));
      return;
    }
    switch (bytes_) {
      case 1: return elements<uint8_t>(from, to);
      case 2: return elements<uint16_t>(from, to);
      case 4: return elements<uint32_t>(from, to);
      default: return elements<uint64_t>(from, to);
    }
  }

  Dims dims_, from_, to_;
  int64_t from_offset_, to_offset_, bytes_;
  bool empty_ = false;
};

Prepared copy_of(Copy copy) {
  return {[copy = std::move(copy)](Inputs in, Outputs out, uint8_t*) { copy.run(in[0], out[0]); }};
}

Prepared reshape(const Call& call) {
  same_type(call);
  require(call.input(0).elements() == call.result().elements(), call, "the element counts differ");
  const auto bytes = static_cast<std::size_t>(call.result().bytes());
  return {[bytes](Inputs in, Outputs out, uint8_t*) { std::memmove(out[0], in[0], bytes); }};
}

Prepared transpose(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const Dims perm = call.attrs.ints("perm"), strides = strides_of(x.dims);
  require(perm.size() == x.dims.size() && y.rank() == x.rank(), call, "the ranks differ");
  Dims from(perm.size());
  std::vector<bool> seen(perm.size());
  for (std::size_t i = 0; i < perm.size(); ++i) {
    const int axis = axis_of(call, perm[i], x.rank());
    require(!seen[axis] && y.dims[i] == x.dims[axis], call, "'perm' does not lead to the result's shape");
    seen[axis] = true;
    from[i] = strides[axis];
  }
  return copy_of(Copy(y.dims, from, strides_of(y.dims), 0, 0, y.element_bytes()));
}

// Stride of every logical axis in a tensor's own layout.
Dims layout_strides(const TensorInfo& t) {
  if (t.layout == GADL_LAYOUT_ROW_MAJOR || t.rank() < 3) return strides_of(t.dims);
  Dims strides(t.dims.size());
  int64_t step = 1;
  strides[1] = step;
  step *= t.dims[1];
  for (int i = t.rank() - 1; i >= 2; --i) {
    strides[i] = step;
    step *= t.dims[i];
  }
  strides[0] = step;
  return strides;
}

Prepared relayout(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  require(x.dims == y.dims, call, "the shapes differ");
  return copy_of(Copy(y.dims, layout_strides(x), layout_strides(y), 0, 0, y.element_bytes()));
}

Prepared concat(const Call& call) {
  const TensorInfo& y = call.result();
  const int axis = axis_of(call, call.attrs.integer("axis", 0), y.rank());
  const Dims to = strides_of(y.dims);
  std::vector<Copy> copies;
  int64_t at = 0;
  for (std::size_t i = 0; i < call.in.size(); ++i) {
    const TensorInfo& x = call.input(i);
    require(x.dtype == y.dtype && x.rank() == y.rank(), call, "an operand does not fit");
    for (int d = 0; d < y.rank(); ++d) require(d == axis || x.dims[d] == y.dims[d], call, "an operand does not fit");
    copies.emplace_back(x.dims, strides_of(x.dims), to, 0, at * to[axis], y.element_bytes());
    at += x.dims[axis];
  }
  require(at == y.dims[axis], call, "the operands do not fill the result");
  return {[copies](Inputs in, Outputs out, uint8_t*) {
    for (std::size_t i = 0; i < copies.size(); ++i) copies[i].run(in[i], out[0]);
  }};
}

Prepared slice(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const Dims starts = call.attrs.ints("starts"), sizes = call.attrs.ints("sizes"), steps = call.attrs.ints("steps");
  const std::size_t rank = x.dims.size();
  require(starts.size() == rank && sizes.size() == rank && steps.size() == rank && y.dims == sizes, call, "the attributes do not fit the shapes");
  Dims from = strides_of(x.dims);
  int64_t offset = 0;
  for (std::size_t i = 0; i < rank; ++i) {
    const int64_t extent = x.dims[i];
    // The last element by division, so that no product can overflow.
    const bool inside = sizes[i] == 0 || (starts[i] >= 0 && starts[i] < extent && steps[i] != 0 &&
                                          (sizes[i] == 1 || (steps[i] > 0 ? (extent - 1 - starts[i]) / steps[i] >= sizes[i] - 1
                                                                          : steps[i] > -extent && starts[i] / -steps[i] >= sizes[i] - 1)));
    require(inside, call, "the slice leaves the operand");
    offset += sizes[i] == 0 ? 0 : starts[i] * from[i];
    from[i] = sizes[i] > 1 ? from[i] * steps[i] : 0;
  }
  return copy_of(Copy(y.dims, from, strides_of(y.dims), offset, 0, y.element_bytes()));
}

Prepared expand(const Call& call) {
  same_type(call);
  const TensorInfo& y = call.result();
  return copy_of(Copy(y.dims, broadcast_strides(call.input(0).dims, y.dims), strides_of(y.dims), 0, 0, y.element_bytes()));
}

Prepared tile(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const Dims repeats = call.attrs.ints("repeats"), sx = strides_of(x.dims), sy = strides_of(y.dims);
  require(repeats.size() == x.dims.size() && y.rank() == x.rank(), call, "the ranks differ");
  Dims dims, from, to;
  for (std::size_t i = 0; i < repeats.size(); ++i) {
    require(repeats[i] >= 0 && (x.dims[i] == 0 ? y.dims[i] == 0 : y.dims[i] % x.dims[i] == 0 && y.dims[i] / x.dims[i] == repeats[i]), call,
            "'repeats' does not lead to the result's shape");
    dims.insert(dims.end(), {repeats[i], x.dims[i]});
    from.insert(from.end(), {0, sx[i]});
    to.insert(to.end(), {x.dims[i] * sy[i], sy[i]});
  }
  return copy_of(Copy(dims, from, to, 0, 0, y.element_bytes()));
}

// The operand index of every result index along one padded axis.
Dims border_index(int64_t extent, int64_t before, int64_t out, bool reflect) {
  Dims index(static_cast<std::size_t>(out));
  for (int64_t i = 0; i < out; ++i) {
    int64_t at = i - before;
    if (reflect && at < 0) at = -at;
    if (reflect && at >= extent) at = 2 * (extent - 1) - at;
    index[i] = std::min(std::max<int64_t>(at, 0), extent - 1);
  }
  return index;
}

Prepared pad_border(const Call& call, const Dims& pads, bool reflect) {
  const TensorInfo &x = call.input(0), &y = call.result();
  const Dims strides = strides_of(x.dims);
  std::vector<Dims> offsets;
  for (int i = 0; i < x.rank(); ++i) {
    const bool grows = pads[i] != 0 || pads[x.rank() + i] != 0;
    require(!grows || (x.dims[i] > 0 && (!reflect || std::max(pads[i], pads[x.rank() + i]) < x.dims[i])), call, "the pads are too large");
    offsets.push_back(border_index(x.dims[i], pads[i], y.dims[i], reflect));
    for (int64_t& o : offsets.back()) o *= strides[i];
  }
  const int64_t e = y.element_bytes();
  if (y.rank() == 0 || y.elements() == 0) return reshape(Call{call.op, {}, {&y}, call.out});
  return {[dims = y.dims, offsets, e](Inputs in, Outputs out, uint8_t*) {
    const int last = static_cast<int>(dims.size()) - 1;
    int64_t index[GADL_MOST_DIMS] = {};
    uint8_t* to = out[0];
    while (true) {
      int64_t base = 0;
      for (int i = 0; i < last; ++i) base += offsets[i][index[i]];
      for (int64_t j = 0; j < dims[last]; ++j, to += e) std::memcpy(to, in[0] + (base + offsets[last][j]) * e, e);
      int i = last - 1;
      for (; i >= 0; --i) {
        if (++index[i] < dims[i]) break;
        index[i] = 0;
      }
      if (i < 0) return;
    }
  }};
}

Prepared pad(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const Dims pads = call.attrs.ints("pads");
  const int rank = x.rank();
  require(static_cast<int>(pads.size()) == 2 * rank && y.rank() == rank, call, "'pads' does not fit the shapes");
  for (int i = 0; i < rank; ++i) {
    require(pads[i] >= 0 && pads[i] <= y.dims[i] && pads[rank + i] == y.dims[i] - x.dims[i] - pads[i] && pads[rank + i] >= 0, call, "'pads' does not fit the shapes");
  }
  const std::string mode = call.attrs.text("mode", "constant");
  require(mode == "constant" || mode == "edge" || mode == "reflect", call, "the mode is not known");
  if (mode != "constant") return pad_border(call, pads, mode == "reflect");
  const Dims to = strides_of(y.dims);
  int64_t offset = 0;
  for (int i = 0; i < rank; ++i) offset += pads[i] * to[i];
  const int64_t e = y.element_bytes(), n = y.elements();
  uint64_t fill = 0;
  if (!x.scales.empty()) store_whole(reinterpret_cast<uint8_t*>(&fill), y.dtype, x.zero_point);
  else if (y.dtype == GADL_DTYPE_F64) { const double v = call.attrs.real("value", 0); std::memcpy(&fill, &v, 8); }
  else if (y.is_float()) store_real(reinterpret_cast<uint8_t*>(&fill), y.dtype, static_cast<float>(call.attrs.real("value", 0)));
  else {
    const double v = call.attrs.real("value", 0);
    store_whole(reinterpret_cast<uint8_t*>(&fill), y.dtype, std::fabs(v) < 9e18 ? static_cast<int64_t>(v) : 0);
  }
  const Copy copy(x.dims, strides_of(x.dims), to, 0, offset, e);
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t i = 0; i < n; ++i) std::memcpy(out[0] + i * e, &fill, e);
    copy.run(in[0], out[0]);
  }};
}

// A run-time index into `extent` places; negative ones count from the end.
int64_t checked_index(const uint8_t* at, gadl_dtype type, int64_t extent) {
  const int64_t index = load_whole(at, type);
  if (index < -extent || index >= extent) throw ModelError("an index tensor holds an index out of range");
  return index < 0 ? index + extent : index;
}

Prepared gather(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &index = call.input(1), &y = call.result();
  const int axis = axis_of(call, call.attrs.integer("axis", 0), x.rank());
  require(!index.is_float() && index.dtype != GADL_DTYPE_BOOL, call, "indices are integers");
  Dims wanted(x.dims.begin(), x.dims.begin() + axis);
  wanted.insert(wanted.end(), index.dims.begin(), index.dims.end());
  wanted.insert(wanted.end(), x.dims.begin() + axis + 1, x.dims.end());
  require(wanted == y.dims, call, "the result's shape does not fit");
  int64_t outer = 1, inner = y.element_bytes();
  for (int i = 0; i < axis; ++i) outer *= x.dims[i];
  for (int i = axis + 1; i < x.rank(); ++i) inner *= x.dims[i];
  const int64_t extent = x.dims[axis], count = index.elements(), ie = index.element_bytes();
  const gadl_dtype it = index.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    uint8_t* to = out[0];
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t i = 0; i < count; ++i, to += inner) {
        std::memcpy(to, in[0] + (o * extent + checked_index(in[1] + i * ie, it, extent)) * inner, static_cast<std::size_t>(inner));
      }
  }};
}

Prepared gather_elements(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &index = call.input(1), &y = call.result();
  const int axis = axis_of(call, call.attrs.integer("axis", 0), x.rank());
  require(!index.is_float() && index.dtype != GADL_DTYPE_BOOL, call, "indices are integers");
  require(index.dims == y.dims && y.rank() == x.rank(), call, "the shapes differ");
  for (int i = 0; i < x.rank(); ++i) require(i == axis || y.dims[i] <= x.dims[i], call, "the index tensor is larger than the operand");
  const Dims sx = strides_of(x.dims);
  const int64_t e = y.element_bytes(), ie = index.element_bytes(), n = y.elements(), extent = x.dims[axis];
  const gadl_dtype it = index.dtype;
  return {[=, dims = y.dims](Inputs in, Outputs out, uint8_t*) {
    int64_t at[GADL_MOST_DIMS] = {};
    for (int64_t k = 0; k < n; ++k) {
      int64_t from = checked_index(in[1] + k * ie, it, extent) * sx[axis];
      for (int i = 0; i < static_cast<int>(dims.size()); ++i) from += i == axis ? 0 : at[i] * sx[i];
      std::memcpy(out[0] + k * e, in[0] + from * e, e);
      for (int i = static_cast<int>(dims.size()) - 1; i >= 0 && ++at[i] == dims[i]; --i) at[i] = 0;
    }
  }};
}

}  // namespace

Prepared prepare_resize(const Call& call);

const KernelTable& movement_kernels() {
  static const KernelTable table = {
      {"reshape", reshape}, {"transpose", transpose}, {"relayout", relayout}, {"concat", concat}, {"slice", slice}, {"pad", pad},
      {"gather", gather}, {"gather_elements", gather_elements}, {"expand", expand}, {"tile", tile}, {"resize", prepare_resize},
  };
  return table;
}

}  // namespace gadl
