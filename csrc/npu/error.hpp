// SPDX-License-Identifier: Apache-2.0
// Errors inside the simulator; caught where the library ends.
#pragma once
#include <stdexcept>
#include <string>

namespace gadl::npu {

class SimError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace gadl::npu
