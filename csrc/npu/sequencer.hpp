// SPDX-License-Identifier: Apache-2.0
// Expands loops and address registers into the instructions that the queues receive.
#pragma once
#include <cstddef>
#include <vector>

#include "program.hpp"

namespace gadl::npu {

struct Dispatched {
  Instr instr;
  double ready = 0;  // cycle at which the fetch has delivered it
};

// Throws SimError on bad nesting and on more than `limit` dynamic instructions.
std::vector<Dispatched> sequence(const std::vector<Instr>& code, double fetch_bytes_per_cycle, std::size_t limit);

}  // namespace gadl::npu
