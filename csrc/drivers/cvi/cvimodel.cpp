// SPDX-License-Identifier: Apache-2.0
// The container's tables and slots are facts read from the vendor's published sources.
#include "cvimodel.hpp"

#include <cstring>
#include <map>

#include "cvi_runtime.h"
#include "flatbuffer.hpp"

namespace gadl::cvi {

namespace {

constexpr uint64_t kHeaderBytes = 48;
constexpr uint64_t kMostBytes = uint64_t{1} << 40;
constexpr uint32_t kMostDims = 6;
constexpr uint64_t kWidths[CVI_FMT_COUNT] = {4, 4, 4, 2, 2, 2, 1, 1};

enum ModelSlot : uint32_t { kPrograms = 6, kSections = 7 };
enum ProgramSlot : uint32_t { kNeuronSize = 1, kInputs = 2, kOutputs = 3, kTensorMap = 4, kRoutines = 5, kSharedMemory = 6, kPrivateMemory = 7 };
enum TensorSlot : uint32_t { kTensorName = 1, kFormat = 3, kShape = 4 };
enum SectionSlot : uint32_t { kSectionType = 0, kSectionSize = 2, kSectionOffset = 3, kEncrypted = 4, kCompressed = 5 };
enum SectionType : uint8_t { kCommands = 1 };

uint64_t sum(uint64_t a, uint64_t b) {
  if (a + b > kMostBytes) throw ContainerError("the container asks for an unreasonable amount of memory");
  return a + b;
}

Tensor read_tensor(const Table& table) {
  Tensor tensor;
  tensor.name = table.text(kTensorName);
  tensor.format = table.value<uint8_t>(kFormat);
  if (tensor.format >= CVI_FMT_COUNT) throw ContainerError("tensor '" + tensor.name + "' has an unknown type");
  const Vector dims = table.table(kShape).list(0, 8);
  if (dims.size() == 0 || dims.size() > kMostDims) throw ContainerError("tensor '" + tensor.name + "' has no shape");
  tensor.count = 1;
  for (uint32_t i = 0; i < dims.size(); ++i) {
    const int64_t dim = dims.number(i);
    if (dim < 1 || static_cast<uint64_t>(dim) > kMostBytes / tensor.count) throw ContainerError("tensor '" + tensor.name + "' has an impossible shape");
    tensor.count *= static_cast<uint64_t>(dim);
  }
  tensor.size_bytes = sum(0, tensor.count) * kWidths[tensor.format];
  return tensor;
}

// Descriptors with their headers, one behind the other.
void check_commands(const uint8_t* data, uint64_t size) {
  constexpr uint64_t kRecordHeader = 8, kTiuBytes = 112, kTdmaBytes = 64;
  for (uint64_t at = 0; at < size;) {
    if (size - at < kRecordHeader) throw ContainerError("the command stream ends inside a record");
    const uint64_t bytes = data[at + 1], wanted = data[at + 2] == 0 ? kTiuBytes : kTdmaBytes;
    if (data[at] != data[0] || (data[at + 2] != 0 && data[at + 2] != 2) || bytes != wanted || bytes > size - at - kRecordHeader) {
      throw ContainerError("the command stream holds a damaged record");
    }
    at += kRecordHeader + bytes;
  }
}

// Section data follows the tables.
uint64_t read_sections(const Vector& sections, const uint8_t* data, uint64_t size) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < sections.size(); ++i) {
    const Table section = sections.table(i);
    const uint64_t offset = section.value<uint32_t>(kSectionOffset), bytes = section.value<uint32_t>(kSectionSize);
    if (offset > size || bytes > size - offset) throw ContainerError("section " + std::to_string(i) + " leaves the file");
    const bool packed = section.value<uint8_t>(kEncrypted) != 0 || section.value<uint8_t>(kCompressed) != 0;
    if (section.value<uint8_t>(kSectionType) == kCommands && !packed) check_commands(data + offset, bytes);
    total = sum(total, bytes);
  }
  return total;
}

std::vector<Tensor> read_list(const Vector& names, const std::map<std::string, Tensor>& known, uint64_t& memory) {
  std::vector<Tensor> found;
  for (uint32_t i = 0; i < names.size(); ++i) {
    const auto tensor = known.find(names.text(i));
    if (tensor == known.end()) throw ContainerError("input or output '" + names.text(i) + "' is not among the tensors");
    found.push_back(tensor->second);
    memory = sum(memory, tensor->second.size_bytes);
  }
  return found;
}

}  // namespace

bool has_magic(const void* data, uint64_t size) { return size >= 8 && std::memcmp(data, "CviModel", 8) == 0; }

Container read_container(const uint8_t* data, uint64_t size) {
  if (size < kHeaderBytes || !has_magic(data, size)) throw ContainerError("it is not a .cvimodel container");
  const Buffer tables{data + kHeaderBytes, Buffer{data, size}.at<uint32_t>(8)};
  if (tables.size > size - kHeaderBytes) throw ContainerError("the container is truncated");
  Container found;
  const auto* chip = reinterpret_cast<const char*>(data) + 30;
  found.chip.assign(chip, strnlen(chip, 16));
  const Table model(tables, tables.follow(0));
  const Vector programs = model.list(kPrograms);
  if (programs.size() == 0) throw ContainerError("the container has no program");
  const uint64_t behind = kHeaderBytes + tables.size;
  found.memory_bytes = read_sections(model.list(kSections), data + behind, size - behind);
  const Table program = programs.table(0);
  if (program.list(kRoutines).size() == 0) throw ContainerError("the container's program does nothing");
  for (const uint32_t slot : {kNeuronSize, kSharedMemory, kPrivateMemory}) found.memory_bytes = sum(found.memory_bytes, program.value<uint32_t>(slot));
  std::map<std::string, Tensor> tensors;
  const Vector list = program.list(kTensorMap);
  for (uint32_t i = 0; i < list.size(); ++i) {
    Tensor tensor = read_tensor(list.table(i));
    if (!tensors.emplace(tensor.name, tensor).second) throw ContainerError("two tensors are called '" + tensor.name + "'");
  }
  found.inputs = read_list(program.list(kInputs), tensors, found.memory_bytes);
  found.outputs = read_list(program.list(kOutputs), tensors, found.memory_bytes);
  if (found.outputs.empty()) throw ContainerError("the container's program has no output");
  return found;
}

}  // namespace gadl::cvi
