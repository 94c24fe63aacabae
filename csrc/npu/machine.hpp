// SPDX-License-Identifier: Apache-2.0
// The machine's parameters, as the container carries them.
#pragma once
#include <array>
#include <cstdint>

#include "isa_generated.h"

namespace gadl::npu {

constexpr int kParameterCount = static_cast<int>(Parameter::kCount);

struct Machine {
  std::array<double, kParameterCount> values{};
  double operator[](Parameter p) const { return values[static_cast<int>(p)]; }
  int64_t integer(Parameter p) const { return static_cast<int64_t>((*this)[p]); }
  int cores() const { return static_cast<int>(integer(Parameter::machine_cores)); }
  int64_t sram_bytes() const { return integer(Parameter::sram_kib) * 1024; }
  int64_t acc_bytes() const { return integer(Parameter::mma_acc_kib) * 1024; }
  int load_queues() const { return static_cast<int>(integer(Parameter::dma_channels)) - 1; }
};

}  // namespace gadl::npu
