// SPDX-License-Identifier: Apache-2.0
// Functional state of a core and the execution of one instruction.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "program.hpp"

namespace gadl::npu {

struct Region {
  uint8_t* data = nullptr;
  uint64_t size = 0;
};

// Bytes that an instruction touches: rows of `row` bytes at every combination of `dims`, all inside [begin, end).
struct Access {
  enum class Space : uint8_t { kSram, kAcc, kDram };
  struct Dim {
    int64_t count = 1, stride = 0;  // stride > 0 where count > 1
  };
  Space space = Space::kSram;
  bool write = false;
  uint8_t region = 0;
  int64_t begin = 0, end = 0;
  int64_t bytes = 0;  // bytes moved
  int64_t row = 0;
  std::array<Dim, 4> dims{};
  bool dense() const { return end - begin == row; }
};

class Core {
 public:
  explicit Core(const Machine& machine);

  // Executes the instruction; `accesses` must have passed.
  void execute(const Instr& instr, const std::array<Region, kRegions>& regions);

  const uint8_t* sram(int64_t address) const { return sram_.data() + address; }
  uint8_t* sram(int64_t address) { return sram_.data() + address; }
  uint8_t* acc(int64_t address) { return acc_.data() + address; }
  int64_t sram_size() const { return static_cast<int64_t>(sram_.size()); }
  int64_t acc_size() const { return static_cast<int64_t>(acc_.size()); }

 private:
  std::vector<uint8_t> sram_, acc_;
};

// Sizes of the memories that accesses are checked against.
struct Extents {
  int64_t sram = 0, acc = 0;
  std::array<uint64_t, kRegions> regions{};
};

// Everything the instruction reads and writes; throws SimError when it leaves the memories.
void accesses(const Instr& instr, const Extents& extents, std::vector<Access>& found);
// The product of counts from a program; throws SimError above 2^32, so that no program overflows or hangs the simulator.
int64_t checked_product(std::initializer_list<int64_t> factors, const char* what);

// Executors by group (one file each).
void execute_product(Core& core, const Instr& instr);
void execute_drain(Core& core, const Instr& instr);
void execute_vector(Core& core, const Instr& instr);
void execute_movement(Core& core, const Instr& instr, const std::array<Region, kRegions>& regions);

int type_bytes(int64_t type);
// Bytes of `count` contiguous elements; two i4 share a byte, the first in its low half.
int64_t packed_bytes(int64_t count, int64_t type);
int cell_bytes(int64_t x_type);
int64_t load_integer(const uint8_t* p, int64_t type);
void store_integer(uint8_t* p, int64_t type, int64_t value);
float load_float(const uint8_t* p, int64_t type);
void store_float(uint8_t* p, int64_t type, float value);
bool is_float(int64_t type);

}  // namespace gadl::npu
