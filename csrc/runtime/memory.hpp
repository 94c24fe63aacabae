// SPDX-License-Identifier: Apache-2.0
// Zeroed memory aligned for every kernel. Pages are taken when they are first written.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "gadl/artifact_format.h"

namespace gadl {

class Memory {
 public:
  Memory() = default;
  explicit Memory(uint64_t size) : size_(size) {
    if (size > SIZE_MAX - GADL_ALIGNMENT) throw std::bad_alloc();
    block_.reset(static_cast<uint8_t*>(std::calloc(static_cast<std::size_t>(size) + GADL_ALIGNMENT, 1)));
    if (block_ == nullptr) throw std::bad_alloc();
    const auto address = reinterpret_cast<std::uintptr_t>(block_.get());
    data_ = block_.get() + (GADL_ALIGNMENT - address % GADL_ALIGNMENT) % GADL_ALIGNMENT;
  }
  uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> block_;
  uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace gadl
