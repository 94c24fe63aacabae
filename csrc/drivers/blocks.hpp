// SPDX-License-Identifier: Apache-2.0
// Device memory of drivers whose device is this process.
#pragma once
#include <map>
#include <new>
#include <string>

#include "gadl/driver.h"
#include "memory.hpp"

namespace gadl {

class Blocks {
 public:
  gadl_status alloc(uint64_t size, uint64_t* handle, std::string& error) {
    try {
      Memory block(size);
      blocks_[next_] = std::move(block);
      *handle = next_++;
      return GADL_OK;
    } catch (const std::bad_alloc&) {
      error = "out of memory";
      return GADL_ERROR_MEMORY;
    }
  }
  gadl_status release(uint64_t handle) { return blocks_.erase(handle) == 1 ? GADL_OK : GADL_ERROR_ARGUMENT; }
  void* map(uint64_t handle) const {
    const auto found = blocks_.find(handle);
    return found == blocks_.end() ? nullptr : found->second.data();
  }

 private:
  std::map<uint64_t, Memory> blocks_;
  uint64_t next_ = 1;
};

}  // namespace gadl
