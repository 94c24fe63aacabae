// SPDX-License-Identifier: Apache-2.0
// Reads the tables of a FlatBuffer by slot number. Every offset is checked against the buffer.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>

#include "cvimodel.hpp"

namespace gadl::cvi {

constexpr uint32_t kMostText = 1024, kMostItems = 1u << 16;

struct Buffer {
  const uint8_t* data;
  uint64_t size;

  template <class T>
  T at(uint64_t offset) const {
    if (offset > size || sizeof(T) > size - offset) throw ContainerError("an offset leaves the container's tables");
    T value;
    std::memcpy(&value, data + offset, sizeof(T));
    return value;
  }
  uint64_t follow(uint64_t offset) const { return offset + at<uint32_t>(offset); }
  // Names are short; longer ones could fill memory by being named often.
  std::string text(uint64_t offset) const {
    const auto length = at<uint32_t>(offset);
    if (length > kMostText || length > size - offset - 4) throw ContainerError("a text leaves the container's tables");
    return {reinterpret_cast<const char*>(data) + offset + 4, length};
  }
};

class Table;

// A vector of 4-byte offsets, or of scalars.
class Vector {
 public:
  Vector() = default;
  Vector(const Buffer& buffer, uint64_t offset, uint32_t item_bytes) : buffer_(&buffer), first_(offset + 4), count_(buffer.at<uint32_t>(offset)) {
    if (count_ > kMostItems || count_ > (buffer.size - first_) / item_bytes) throw ContainerError("a list leaves the container's tables");
  }
  uint32_t size() const { return count_; }
  inline Table table(uint32_t index) const;
  std::string text(uint32_t index) const { return buffer_->text(buffer_->follow(first_ + uint64_t{4} * index)); }
  int64_t number(uint32_t index) const { return buffer_->at<int64_t>(first_ + uint64_t{8} * index); }

 private:
  const Buffer* buffer_ = nullptr;
  uint64_t first_ = 0;
  uint32_t count_ = 0;
};

class Table {
 public:
  Table(const Buffer& buffer, uint64_t offset) : buffer_(&buffer), at_(offset) {
    // The table of slots lies before or behind; the difference wraps where it would be negative, and is then out of range.
    slots_ = at_ - static_cast<uint64_t>(static_cast<int64_t>(buffer.at<int32_t>(at_)));
    slots_bytes_ = buffer.at<uint16_t>(slots_);
    if (slots_bytes_ < 4 || slots_bytes_ > buffer.size - slots_) throw ContainerError("a table has no slots");
  }
  // Where the slot's value lies, or 0 when it is absent.
  uint64_t field(uint32_t slot) const {
    const uint64_t entry = 4 + uint64_t{2} * slot;
    if (entry + 2 > slots_bytes_) return 0;
    const auto offset = buffer_->at<uint16_t>(slots_ + entry);
    return offset == 0 ? 0 : at_ + offset;
  }
  template <class T>
  T value(uint32_t slot) const {
    const uint64_t where = field(slot);
    return where == 0 ? T{} : buffer_->at<T>(where);
  }
  bool has(uint32_t slot) const { return field(slot) != 0; }
  Table table(uint32_t slot) const { return {*buffer_, buffer_->follow(needed(slot))}; }
  std::string text(uint32_t slot) const { return has(slot) ? buffer_->text(buffer_->follow(field(slot))) : std::string(); }
  Vector list(uint32_t slot, uint32_t item_bytes = 4) const { return has(slot) ? Vector(*buffer_, buffer_->follow(field(slot)), item_bytes) : Vector(); }

 private:
  uint64_t needed(uint32_t slot) const {
    const uint64_t where = field(slot);
    if (where == 0) throw ContainerError("a table of the container lacks a part");
    return where;
  }
  const Buffer* buffer_;
  uint64_t at_, slots_ = 0;
  uint32_t slots_bytes_ = 0;
};

Table Vector::table(uint32_t index) const { return {*buffer_, buffer_->follow(first_ + uint64_t{4} * index)}; }

}  // namespace gadl::cvi
