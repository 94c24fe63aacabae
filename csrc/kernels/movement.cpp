// SPDX-License-Identifier: Apache-2.0
// Ops that move elements: reshape transpose relayout concat slice pad gather gather_elements expand tile.
#include <algorithm>
#include <cstring>

#include "kernel.hpp"

namespace gadl {
namespace {

// Copies elements of `size` bytes: `dims` of the result in its memory order, `strides` of the source in elements.
Prepared strided_copy(std::vector<int64_t> dims, std::vector<int64_t> strides, int64_t offset, int64_t size) {
  if (dims.empty()) {
    dims = {1};
    strides = {0};
  }
  std::vector<int64_t> own(dims.size());
  int64_t step = 1;
  for (std::size_t i = dims.size(); i-- > 0;) {
    own[i] = step;
    step *= dims[i];
  }
  const std::array<std::vector<int64_t>, 2> both = {strides, own};
  if (step == 0) return {[](Inputs, Outputs, uint8_t*) {}};
  return {[=](Inputs in, Outputs out, uint8_t*) {
    const int64_t n = dims.back(), s = strides.back();
    for_rows(dims, both, [&](const int64_t* at) {
      const uint8_t* from = in[0] + (at[0] + offset) * size;
      uint8_t* to = out[0] + at[1] * size;
      if (s == 1) {
        std::memcpy(to, from, n * size);
      } else if (size == 1) {
        for (int64_t i = 0; i < n; ++i) to[i] = from[i * s];
      } else {
        for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * size, from + i * s * size, size);
      }
    });
  }};
}

void same_type(const Call& call) { require(call.input(0).dtype == call.result().dtype, call, "types differ"); }

Prepared reshape(const Call& call) {
  same_type(call);
  const int64_t bytes = call.input(0).bytes();
  require(bytes == call.result().bytes(), call, "sizes differ");
  return {[=](Inputs in, Outputs out, uint8_t*) {
    if (bytes > 0) std::memmove(out[0], in[0], bytes);
  }};
}

std::vector<int64_t> memory_order(gadl_layout layout, int rank) {
  std::vector<int64_t> order;
  for (int i = 0; i < rank; ++i) order.push_back(i);
  if (layout == GADL_LAYOUT_CHANNELS_LAST && rank >= 3) {
    order.erase(order.begin() + 1);
    order.push_back(1);
  }
  return order;
}

// Element strides per logical axis.
std::vector<int64_t> memory_strides(const TensorInfo& t) {
  std::vector<int64_t> strides(t.dims.size(), 1);
  int64_t step = 1;
  const std::vector<int64_t> order = memory_order(t.layout, t.rank());
  for (std::size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = step;
    step *= t.dims[order[i]];
  }
  return strides;
}

Prepared permuted(const Call& call, const std::vector<int64_t>& perm) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  require(static_cast<int>(perm.size()) == x.rank() && y.rank() == x.rank(), call, "the permutation does not fit");
  std::vector<bool> seen(perm.size(), false);
  const std::vector<int64_t> from = memory_strides(x);
  for (std::size_t i = 0; i < perm.size(); ++i) {
    require(perm[i] >= 0 && perm[i] < x.rank() && !seen[perm[i]] && y.dims[i] == x.dims[perm[i]], call, "the permutation does not fit");
    seen[perm[i]] = true;
  }
  std::vector<int64_t> dims, strides;
  for (int64_t axis : memory_order(y.layout, y.rank())) {
    dims.push_back(y.dims[axis]);
    strides.push_back(from[perm[axis]]);
  }
  return strided_copy(dims, strides, 0, x.element_bytes());
}

Prepared transpose(const Call& call) { return permuted(call, call.attrs.ints("perm")); }

Prepared relayout(const Call& call) {
  std::vector<int64_t> identity;
  for (int i = 0; i < call.input(0).rank(); ++i) identity.push_back(i);
  return permuted(call, identity);
}

Prepared concat(const Call& call) {
  const TensorInfo& y = call.result();
  const int axis = axis_of(call, call.attrs.integer("axis", 0), y.rank());
  int64_t outer = 1, inner = y.element_bytes(), total = 0;
  for (int i = 0; i < axis; ++i) outer *= y.dims[i];
  for (int i = axis + 1; i < y.rank(); ++i) inner *= y.dims[i];
  std::vector<int64_t> parts;
  for (std::size_t k = 0; k < call.in.size(); ++k) {
    const TensorInfo& x = call.input(k);
    require(x.rank() == y.rank() && x.dtype == y.dtype, call, "operands do not fit");
    for (int i = 0; i < y.rank(); ++i) require(i == axis || x.dims[i] == y.dims[i], call, "operands do not fit");
    parts.push_back(x.dims[axis] * inner);
    total += x.dims[axis];
  }
  require(total == y.dims[axis], call, "operands do not fill the result");
  return {[=](Inputs in, Outputs out, uint8_t*) {
    uint8_t* to = out[0];
    for (int64_t o = 0; o < outer; ++o)
      for (std::size_t k = 0; k < parts.size(); to += parts[k++]) {
        if (parts[k] > 0) std::memcpy(to, in[k] + o * parts[k], parts[k]);
      }
  }};
}

Prepared slice(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const auto starts = call.attrs.ints("starts"), steps = call.attrs.ints("steps");
  require(y.rank() == x.rank() && static_cast<int>(starts.size()) == x.rank() && starts.size() == steps.size(), call, "attributes do not fit");
  std::vector<int64_t> strides = broadcast_strides(x.dims, x.dims);
  int64_t offset = 0;
  for (int i = 0; i < x.rank(); ++i) {
    int64_t span = 1;
    for (int k = i + 1; k < x.rank(); ++k) span *= x.dims[k];
    const int64_t last = starts[i] + (y.dims[i] - 1) * steps[i];
    require(y.dims[i] == 0 || (starts[i] >= 0 && starts[i] < x.dims[i] && last >= 0 && last < x.dims[i]), call, "the slice leaves its operand");
    offset += starts[i] * span;
    strides[i] = steps[i] * span;
  }
  return strided_copy(y.dims, strides, offset, x.element_bytes());
}

Prepared expand(const Call& call) {
  same_type(call);
  return strided_copy(call.result().dims, broadcast_strides(call.input(0).dims, call.result().dims), 0, call.input(0).element_bytes());
}

// Result index -> source index per axis, then one gather over all axes (pad by reflection or edge, tile).
Prepared mapped(const Call& call, const std::vector<std::vector<int64_t>>& maps, const std::vector<uint8_t>& fill) {
  const TensorInfo &x = call.input(0), &y = call.result();
  const int rank = y.rank();
  const int64_t e = x.element_bytes(), total = y.elements();
  std::vector<int64_t> spans(rank, 1);
  for (int i = rank - 2; i >= 0; --i) spans[i] = spans[i + 1] * x.dims[i + 1];
  const std::vector<int64_t> dims = y.dims;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t n = 0; n < total; ++n) {
      int64_t rest = n, at = 0;
      bool inside = true;
      for (int i = rank - 1; i >= 0; --i) {
        const int64_t from = maps[i][rest % dims[i]];
        rest /= dims[i];
        inside = inside && from >= 0;
        at += from * spans[i];
      }
      std::memcpy(out[0] + n * e, inside ? in[0] + at * e : fill.data(), e);
    }
  }};
}

Prepared pad(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  const auto pads = call.attrs.ints("pads");
  const std::string mode = call.attrs.text("mode", "constant");
  const int rank = x.rank();
  require(y.rank() == rank && static_cast<int>(pads.size()) == 2 * rank && x.elements() > 0, call, "pads do not fit");
  std::vector<std::vector<int64_t>> maps(rank);
  for (int i = 0; i < rank; ++i) {
    const int64_t before = pads[i], after = pads[rank + i], extent = x.dims[i];
    require(before >= 0 && after >= 0 && y.dims[i] == extent + before + after, call, "pads do not fit");
    require(mode != "reflect" || (before < extent && after < extent) || (before == 0 && after == 0), call, "reflection needs pads smaller than the extent");
    for (int64_t k = -before; k < extent + after; ++k) {
      const bool inside = k >= 0 && k < extent;
      const int64_t edge = k < 0 ? 0 : extent - 1, mirror = k < 0 ? -k : 2 * (extent - 1) - k;
      maps[i].push_back(inside ? k : mode == "constant" ? -1 : mode == "edge" ? edge : mirror);
    }
  }
  std::vector<uint8_t> fill(8, 0);
  if (!x.scales.empty()) store_whole(fill.data(), x.dtype, x.zero_point);
  else store_real(fill.data(), x.dtype, static_cast<float>(call.attrs.real("value", 0.0)));
  return mapped(call, maps, fill);
}

Prepared tile(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &y = call.result();
  require(y.rank() == x.rank(), call, "repeats do not fit");
  std::vector<std::vector<int64_t>> maps(x.rank());
  for (int i = 0; i < x.rank(); ++i) {
    require(x.dims[i] > 0 && y.dims[i] % x.dims[i] == 0, call, "repeats do not fit");
    for (int64_t k = 0; k < y.dims[i]; ++k) maps[i].push_back(k % x.dims[i]);
  }
  return mapped(call, maps, std::vector<uint8_t>(8, 0));
}

// Out of range indices are clamped: the run cannot fail.
int64_t bounded(int64_t index, int64_t extent) { return std::min(std::max(index < 0 ? index + extent : index, int64_t{0}), extent - 1); }

Prepared gather(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &indices = call.input(1), &y = call.result();
  const int axis = axis_of(call, call.attrs.integer("axis", 0), x.rank());
  int64_t outer = 1, inner = x.element_bytes();
  for (int i = 0; i < axis; ++i) outer *= x.dims[i];
  for (int i = axis + 1; i < x.rank(); ++i) inner *= x.dims[i];
  const int64_t extent = x.dims[axis], count = indices.elements(), ie = indices.element_bytes();
  require(extent > 0 && !indices.is_float() && outer * count * inner == y.bytes(), call, "indices do not fit");
  const gadl_dtype type = indices.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t o = 0; o < outer; ++o)
      for (int64_t k = 0; k < count; ++k) {
        std::memcpy(out[0] + (o * count + k) * inner, in[0] + (o * extent + bounded(load_whole(in[1] + k * ie, type), extent)) * inner, inner);
      }
  }};
}

Prepared gather_elements(const Call& call) {
  same_type(call);
  const TensorInfo &x = call.input(0), &indices = call.input(1), &y = call.result();
  const int axis = axis_of(call, call.attrs.integer("axis", 0), x.rank()), rank = x.rank();
  require(indices.dims == y.dims && y.rank() == rank && !indices.is_float() && x.dims[axis] > 0, call, "indices do not fit");
  for (int i = 0; i < rank; ++i) require(i == axis || y.dims[i] <= x.dims[i], call, "indices do not fit");
  std::vector<int64_t> spans(rank, 1);
  for (int i = rank - 2; i >= 0; --i) spans[i] = spans[i + 1] * x.dims[i + 1];
  const std::vector<int64_t> dims = y.dims;
  const int64_t total = y.elements(), e = x.element_bytes(), ie = indices.element_bytes(), extent = x.dims[axis];
  const gadl_dtype type = indices.dtype;
  return {[=](Inputs in, Outputs out, uint8_t*) {
    for (int64_t n = 0; n < total; ++n) {
      int64_t rest = n, at = 0;
      for (int i = rank - 1; i >= 0; --i) {
        const int64_t k = rest % dims[i];
        rest /= dims[i];
        at += (i == axis ? bounded(load_whole(in[1] + n * ie, type), extent) : k) * spans[i];
      }
      std::memcpy(out[0] + n * e, in[0] + at * e, e);
    }
  }};
}

}  // namespace

const KernelTable& movement_kernels() {
  static const KernelTable table = {
      {"reshape", reshape}, {"transpose", transpose}, {"relayout", relayout}, {"concat", concat}, {"slice", slice}, {"pad", pad},
      {"gather", gather}, {"gather_elements", gather_elements}, {"expand", expand}, {"tile", tile},
  };
  return table;
}

}  // namespace gadl
