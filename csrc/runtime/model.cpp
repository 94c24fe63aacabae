// SPDX-License-Identifier: Apache-2.0
// The loader. The file is untrusted: every offset, count and shape is checked here, once. Layout: compiler/artifact/format.py.
#include "model.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "checksum.hpp"

namespace gadl {
namespace {

constexpr uint32_t kMostItems = 1u << 20;
constexpr uint64_t kMostBytes = uint64_t{1} << 34;

// Well formed as strict readers take it: no overlong forms, no surrogates.
bool is_utf8(const uint8_t* p, std::size_t size) {
  for (const uint8_t* end = p + size; p != end;) {
    const uint8_t lead = *p++;
    if (lead < 0x80) continue;
    const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || end - p < more) return false;
    uint32_t code = lead & (0x3Fu >> more);
    for (int i = 0; i < more; ++i, ++p) {
      if ((*p & 0xC0) != 0x80) return false;
      code = code << 6 | (*p & 0x3Fu);
    }
    const uint32_t least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
    if (code < least || code > 0x10FFFF || code >> 11 == 0xD800 >> 11) return false;
  }
  return true;
}

// A stream over one section.
class Stream {
 public:
  explicit Stream(Bytes bytes) : bytes_(bytes) {}
  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  const uint8_t* take(uint64_t size) {
    if (size > bytes_.size - at_) throw ModelError("the schedule is truncated");
    const uint8_t* found = bytes_.data + at_;
    at_ += size;
    return found;
  }
  std::string text() {
    const auto size = get<uint16_t>();
    const uint8_t* found = take(size);
    if (!is_utf8(found, size)) throw ModelError("a text in the schedule is not UTF-8");
    return {reinterpret_cast<const char*>(found), size};
  }
  uint32_t count(uint64_t least_bytes_each) {
    const auto n = get<uint32_t>();
    if (n > kMostItems || n * least_bytes_each > bytes_.size - at_) throw ModelError("the schedule holds an unreasonable count");
    return n;
  }

 private:
  Bytes bytes_;
  uint64_t at_ = 0;
};

gadl_dtype dtype_of(uint8_t code) {
  if (code > GADL_DTYPE_BOOL) throw ModelError("the schedule holds an unknown element type");
  return static_cast<gadl_dtype>(code);
}

// Dimensions whose product stays small.
std::vector<int64_t> read_dims(Stream& s, int rank, int64_t element) {
  if (rank > GADL_MOST_DIMS) throw ModelError("a tensor has too many dimensions");
  std::vector<int64_t> dims;
  uint64_t total = static_cast<uint64_t>(element);
  for (int i = 0; i < rank; ++i) {
    const auto d = s.get<int64_t>();
    if (d < 0 || static_cast<uint64_t>(d) > kMostBytes || (d > 0 && total > kMostBytes / static_cast<uint64_t>(d))) throw ModelError("a tensor is unreasonably large");
    total *= static_cast<uint64_t>(d);
    dims.push_back(d);
  }
  return dims;
}

Tensor read_tensor(Stream& s) {
  Tensor t;
  t.info.name = s.text();
  t.info.dtype = dtype_of(s.get<uint8_t>());
  const auto layout = s.get<uint8_t>(), storage = s.get<uint8_t>(), rank = s.get<uint8_t>();
  if (layout > GADL_LAYOUT_CHANNELS_LAST || storage > GADL_STORAGE_WEIGHTS) throw ModelError("a tensor has an unknown layout or storage");
  t.info.layout = static_cast<gadl_layout>(layout);
  t.storage = static_cast<gadl_storage>(storage);
  t.info.dims = read_dims(s, rank, t.info.element_bytes());
  t.offset = s.get<uint64_t>();
  t.info.zero_point = s.get<int32_t>();
  t.info.axis = s.get<int32_t>();
  const uint32_t scales = s.count(8);
  for (uint32_t i = 0; i < scales; ++i) t.info.scales.push_back(s.get<double>());
  return t;
}

Requant read_requant(Stream& s) {
  Requant r;
  const auto rounding = s.get<uint8_t>();
  if (rounding > static_cast<uint8_t>(npu::Round::F32)) throw ModelError("an attribute has an unknown rounding");
  r.rounding = static_cast<npu::Round>(rounding);
  const uint32_t n = s.count(5);
  for (uint32_t i = 0; i < n; ++i) r.multiplier.push_back(s.get<int32_t>());
  for (uint32_t i = 0; i < n; ++i) {
    const auto shift = s.get<int8_t>();
    if (shift < 1 || shift > 62) throw ModelError("a requantisation shifts by less than 1 or more than 62");
    r.shift.push_back(shift);
  }
  if (n == 0) throw ModelError("a requantisation is empty");
  return r;
}

Attribute read_attribute(Stream& s) {
  Attribute a;
  a.name = s.text();
  const auto kind = s.get<uint8_t>();
  if (kind > GADL_ATTR_REQUANTS) throw ModelError("an attribute has an unknown kind");
  a.kind = static_cast<gadl_attr>(kind);
  switch (a.kind) {
    case GADL_ATTR_INT: a.integer = s.get<int64_t>(); break;
    case GADL_ATTR_FLOAT: a.real = s.get<double>(); break;
    case GADL_ATTR_STR: a.text = s.text(); break;
    case GADL_ATTR_INTS:
      for (uint32_t i = s.count(8); i > 0; --i) a.ints.push_back(s.get<int64_t>());
      break;
    case GADL_ATTR_FLOATS:
      for (uint32_t i = s.count(8); i > 0; --i) a.reals.push_back(s.get<double>());
      break;
    case GADL_ATTR_TENSOR: {
      TensorInfo t;
      t.dtype = a.dtype = dtype_of(s.get<uint8_t>());
      const auto rank = s.get<uint8_t>();
      t.dims = read_dims(s, rank, t.element_bytes());
      const uint8_t* data = s.take(static_cast<uint64_t>(t.bytes()));
      a.bytes.assign(data, data + t.bytes());
      break;
    }
    case GADL_ATTR_REQUANTS:
      for (uint32_t i = s.count(5); i > 0; --i) a.requants.push_back(read_requant(s));
      break;
  }
  return a;
}

std::vector<uint32_t> read_ids(Stream& s, std::size_t tensors, bool may_be_absent) {
  std::vector<uint32_t> ids;
  for (uint32_t i = s.count(4); i > 0; --i) {
    const auto id = s.get<uint32_t>();
    if (id >= tensors && !(may_be_absent && id == GADL_NO_TENSOR)) throw ModelError("a step names a tensor that is not there");
    ids.push_back(id);
  }
  return ids;
}

// Kernels read operands after they have begun to write results, so neither may share memory with a result.
void check_overlap(const Step& step, const LoadedModel& model) {
  using Range = std::pair<uint64_t, uint64_t>;
  const auto range = [&](uint32_t id) {
    const Tensor& t = model.tensors[id];
    return Range{t.offset, t.offset + static_cast<uint64_t>(t.info.bytes())};
  };
  std::vector<Range> written;
  for (uint32_t id : step.results)
    if (range(id).first < range(id).second) written.push_back(range(id));
  std::sort(written.begin(), written.end());
  for (std::size_t i = 1; i < written.size(); ++i)
    if (written[i].first < written[i - 1].second) throw ModelError("two results of a step share memory");
  for (uint32_t id : step.operands) {
    if (id == GADL_NO_TENSOR || model.tensors[id].storage != GADL_STORAGE_ARENA) continue;
    const Range read = range(id);
    const auto after = std::lower_bound(written.begin(), written.end(), Range{read.second, 0});
    if (read.first < read.second && after != written.begin() && std::prev(after)->second > read.first) throw ModelError("a step writes where it reads");
  }
}

Step read_step(Stream& s, const LoadedModel& model) {
  Step step;
  const auto kind = s.get<uint8_t>();
  if (kind > GADL_STEP_SEGMENT) throw ModelError("a step has an unknown kind");
  step.is_segment = kind == GADL_STEP_SEGMENT;
  Call call;
  call.op = s.text();
  step.name = step.is_segment ? "segment" : call.op;
  step.segment = s.get<uint32_t>();
  step.operands = read_ids(s, model.tensors.size(), !step.is_segment);
  step.results = read_ids(s, model.tensors.size(), false);
  for (uint32_t i = s.count(3); i > 0; --i) call.attrs.items.push_back(read_attribute(s));
  for (uint32_t id : step.results)
    if (model.tensors[id].storage != GADL_STORAGE_ARENA) throw ModelError("a step writes into the weights");
  if (step.results.empty()) throw ModelError("a step has no result");
  step.result = model.tensors[step.results[0]].info.name;
  check_overlap(step, model);
  if (step.is_segment) {
    if (step.segment >= model.parts.size()) throw ModelError("a step names a segment that is not there");
    return step;
  }
  for (uint32_t id : step.operands) call.in.push_back(id == GADL_NO_TENSOR ? nullptr : &model.tensors[id].info);
  for (uint32_t id : step.results) call.out.push_back(&model.tensors[id].info);
  step.kernel = prepare_kernel(call);
  return step;
}

void check_places(const LoadedModel& model) {
  for (const Tensor& t : model.tensors) {
    const uint64_t limit = t.storage == GADL_STORAGE_WEIGHTS ? model.weights.size : model.arena_bytes;
    const auto size = static_cast<uint64_t>(t.info.bytes());
    if (t.offset % 8 != 0 || t.offset > limit || size > limit - t.offset) throw ModelError("tensor '" + t.info.name + "' leaves its storage");
  }
}

struct Section {
  char name[17] = {};
  uint32_t index = 0;
  Bytes bytes;
};

template <class T>
T at(const uint8_t* data, uint64_t offset) {
  T value;
  std::memcpy(&value, data + offset, sizeof(T));
  return value;
}

// The table of contents, from a header that this runtime understands.
std::vector<Section> read_table(const uint8_t* data, uint64_t size) {
  if (size < GADL_HEADER_BYTES || std::memcmp(data, GADL_MAGIC, 4) != 0) throw ModelError("it is not a .gadl file");
  const auto major = at<uint16_t>(data, 4), minor = at<uint16_t>(data, 6);
  if (major > GADL_ABI_MAJOR || (major == GADL_ABI_MAJOR && minor > GADL_ABI_MINOR)) {
    throw VersionError("the artefact has ABI " + std::to_string(major) + "." + std::to_string(minor) + ", this runtime reads up to " +
                       std::to_string(GADL_ABI_MAJOR) + "." + std::to_string(GADL_ABI_MINOR) + ": update the runtime, or compile with the older gadlc");
  }
  if (at<uint64_t>(data, 8) & ~uint64_t{GADL_FEATURE_NPU}) throw VersionError("the artefact needs a feature that this runtime lacks: update the runtime");
  const auto count = at<uint32_t>(data, 16);
  if (at<uint64_t>(data, 24) != size || count > 65536 || GADL_HEADER_BYTES + uint64_t{GADL_ENTRY_BYTES} * count > size) throw ModelError("the file is truncated");
  std::vector<Section> found(count);
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t entry = GADL_HEADER_BYTES + uint64_t{GADL_ENTRY_BYTES} * i;
    Section& s = found[i];
    std::memcpy(s.name, data + entry, 16);
    s.index = at<uint32_t>(data, entry + 16);
    const auto offset = at<uint64_t>(data, entry + 24), length = at<uint64_t>(data, entry + 32);
    if (offset % GADL_ALIGNMENT != 0 || offset > size || length > size - offset || crc32(data + offset, length) != at<uint32_t>(data, entry + 20)) {
      throw ModelError(std::string("section '") + s.name + "' is damaged");
    }
    s.bytes = {data + offset, length};
  }
  return found;
}

// Finds a driver for a program and asks it what the program needs.
DevicePart read_part(const Section& section) {
  const std::string name = "device program " + std::to_string(section.index);
  DevicePart part;
  part.program = section.bytes;
  part.driver = gadl_accepting_driver(section.bytes.data, section.bytes.size);
  if (part.driver == nullptr) throw ModelError("no driver of this runtime accepts " + name);
  gadl_program_info info{};
  info.struct_size = sizeof(info);
  char text[512] = "";
  // Once with room for most programs, again where there are more inputs and outputs.
  for (std::size_t room = 64; part.sizes.size() < room; room = std::size_t{info.input_count} + info.output_count) {
    part.sizes.resize(room);
    info.sizes = part.sizes.data();
    info.size_count = static_cast<uint32_t>(room);
    const gadl_status status = part.driver->info(part.program.data, part.program.size, &info, text, sizeof(text));
    if (status == GADL_ERROR_MEMORY) throw std::bad_alloc();
    if (status != GADL_OK) throw ModelError(name + ": " + text);
  }
  part.sizes.resize(std::size_t{info.input_count} + info.output_count);
  part.inputs = info.input_count;
  part.memory_bytes = info.memory_bytes;
  return part;
}

// The program must have the operands and results of the step that calls it.
void check_program(const Step& step, const LoadedModel& model) {
  const DevicePart& part = model.parts[step.segment];
  std::vector<uint32_t> ids = step.operands;
  ids.insert(ids.end(), step.results.begin(), step.results.end());
  const auto same = [&](uint32_t id, uint64_t size) { return static_cast<uint64_t>(model.tensors[id].info.bytes()) == size; };
  if (part.inputs != step.operands.size() || !std::equal(ids.begin(), ids.end(), part.sizes.begin(), part.sizes.end(), same)) {
    throw ModelError("device program " + std::to_string(step.segment) + " has other inputs or outputs than the schedule says");
  }
}

void read_schedule(Bytes host, LoadedModel& model) {
  Stream s(host);
  model.arena_bytes = s.get<uint64_t>();
  if (model.arena_bytes > kMostBytes) throw ModelError("the arena is unreasonably large");
  uint32_t counts[5];
  for (uint32_t& n : counts) {
    n = s.get<uint32_t>();
    if (n > kMostItems) throw ModelError("the schedule holds an unreasonable count");
  }
  for (uint32_t i = 0; i < counts[0]; ++i) model.tensors.push_back(read_tensor(s));
  check_places(model);
  for (uint32_t i = 0; i < counts[1] + counts[2]; ++i) {
    auto& list = i < counts[1] ? model.inputs : model.outputs;
    const std::string name = s.text();
    const auto id = s.get<uint32_t>();
    if (id >= model.tensors.size() || (i < counts[1] && model.tensors[id].storage != GADL_STORAGE_ARENA)) throw ModelError("an input or output names a tensor that is not there");
    list.emplace_back(name, id);
  }
  for (uint32_t i = 0; i < counts[4]; ++i) {
    model.steps.push_back(read_step(s, model));
    const Step& step = model.steps.back();
    if (step.is_segment) check_program(step, model);
    model.scratch_bytes = std::max<uint64_t>(model.scratch_bytes, step.kernel.scratch_bytes);
  }
  if (model.scratch_bytes > kMostBytes) throw ModelError("a step needs an unreasonable amount of scratch memory");
}

}  // namespace

LoadedModel load_model(const uint8_t* data, uint64_t size, Devices devices) {
  if (reinterpret_cast<std::uintptr_t>(data) % 8 != 0) throw ModelError("its bytes are not aligned to 8 in memory");
  LoadedModel model;
  Bytes host;
  for (const Section& section : read_table(data, size)) {
    if (std::strcmp(section.name, "host") == 0) host = section.bytes;
    if (std::strcmp(section.name, "weights") == 0) model.weights = section.bytes;
    if (std::strcmp(section.name, "program") != 0) continue;
    if (section.index != model.parts.size()) throw ModelError("the programs are out of order");
    if (devices == Devices::NONE) throw ModelError("it must run on the host alone");
    model.parts.push_back(read_part(section));
    model.device_bytes += model.parts.back().memory_bytes;
  }
  read_schedule(host, model);
  return model;
}

}  // namespace gadl
