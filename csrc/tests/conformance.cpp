// SPDX-License-Identifier: Apache-2.0
// What every driver must do, run against every driver. Arguments: pairs of a driver's name and a program for it, of one
// input and one output of 256 bytes each, that copies its input.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gadl/driver.h"

namespace {

using Bytes = std::vector<unsigned char>;
constexpr uint64_t kSize = 256;
int failures = 0;

void expect(bool condition, const gadl_driver& driver, const char* what) {
  if (condition) return;
  std::printf("FAILED %s: %s\n", driver.name, what);
  ++failures;
}

void check_program(const gadl_driver& d, const Bytes& program) {
  char error[256] = "";
  expect(d.accepts(program.data(), program.size()) == 1 && d.accepts("junk", 4) == 0 && d.accepts("", 0) == 0, d, "accepts its programs only");
  expect(gadl_find_driver(d.name) == &d && gadl_accepting_driver(program.data(), program.size()) == &d, d, "is found");
  uint64_t sizes[3] = {0, 0, 7};
  gadl_program_info info{};
  expect(d.info(program.data(), program.size(), &info, error, sizeof(error)) == GADL_ERROR_ARGUMENT, d, "info without struct_size is refused");
  info.struct_size = sizeof(info);
  expect(d.info(program.data(), program.size(), &info, error, sizeof(error)) == GADL_OK && info.input_count == 1 && info.output_count == 1, d, "info counts");
  expect(info.memory_bytes >= 2 * kSize, d, "info gives the memory");
  info.sizes = sizes;
  info.size_count = 1;
  expect(d.info(program.data(), program.size(), &info, error, sizeof(error)) == GADL_OK && sizes[0] == kSize && sizes[1] == 0, d, "info writes no more sizes than fit");
  info.size_count = 3;
  expect(d.info(program.data(), program.size(), &info, error, sizeof(error)) == GADL_OK && sizes[1] == kSize && sizes[2] == 7, d, "info gives sizes");
}

void check_bad_programs(const gadl_driver& d, const Bytes& program) {
  char error[256] = "";
  gadl_device* device = nullptr;
  gadl_program_info info{};
  info.struct_size = sizeof(info);
  expect(d.open("junkjunkjunkjunk", 16, nullptr, &device, error, sizeof(error)) != GADL_OK && device == nullptr && error[0] != 0, d, "junk is refused with a text");
  for (size_t size = 0; size < program.size(); size += 97) {
    const Bytes part(program.begin(), program.begin() + static_cast<std::ptrdiff_t>(size));
    error[0] = 0;
    expect(d.info(part.data(), size, &info, error, sizeof(error)) != GADL_OK && error[0] != 0, d, "info refuses a truncated program with a text");
    expect(d.open(part.data(), size, nullptr, &device, error, sizeof(error)) != GADL_OK && device == nullptr, d, "a truncated program is refused");
  }
}

void check_runs(const gadl_driver& d, gadl_device* device) {
  Bytes in(kSize), out(kSize);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<unsigned char>(i * 7 + 3);
  expect(d.copy(device, GADL_TO_DEVICE, 1, in.data(), in.size()) != GADL_OK, d, "an input that is not there is refused");
  expect(d.copy(device, GADL_FROM_DEVICE, 1, out.data(), out.size()) != GADL_OK, d, "an output that is not there is refused");
  expect(d.copy(device, GADL_TO_DEVICE, 0, in.data(), 17) != GADL_OK && d.last_error(device)[0] != 0, d, "another size is refused with a text");
  for (int run = 0; run < 3; ++run) {
    in[0] = static_cast<unsigned char>(run);
    expect(d.copy(device, GADL_TO_DEVICE, 0, in.data(), in.size()) == GADL_OK, d, "copy to the device");
    expect(d.submit(device) == GADL_OK && d.wait(device) == GADL_OK, d, "submit and wait");
    expect(d.copy(device, GADL_FROM_DEVICE, 0, out.data(), out.size()) == GADL_OK && out == in, d, "the program copies its input");
  }
}

void check_counters(const gadl_driver& d, gadl_device* device) {
  gadl_counters counters{};
  expect(d.counters(device, &counters) == GADL_ERROR_ARGUMENT, d, "counters without struct_size are refused");
  counters.struct_size = sizeof(counters);
  expect(d.counters(device, &counters) == GADL_OK && counters.struct_size == sizeof(counters), d, "counters");
  // A device that counts cycles counts the bytes of one run too.
  if (counters.cycles > 0) expect(counters.dram_read_bytes == kSize && counters.dram_write_bytes == kSize, d, "counters are of one run");
}

void check_memory(const gadl_driver& d, gadl_device* device) {
  uint64_t first = 0, second = 0;
  expect(d.alloc(device, 128, &first) == GADL_OK && d.alloc(device, 0, &second) == GADL_OK && first != second, d, "alloc");
  void* block = d.map(device, first);
  expect(block != nullptr && reinterpret_cast<uintptr_t>(block) % 64 == 0, d, "map gives aligned memory");
  if (block != nullptr) std::memset(block, 1, 128);
  expect(d.alloc(device, UINT64_MAX, &second) == GADL_ERROR_MEMORY && d.last_error(device)[0] != 0, d, "too much memory is refused with a text");
  expect(d.free(device, first) == GADL_OK && d.free(device, first) != GADL_OK && d.map(device, first) == nullptr, d, "free once");
}

void check(const gadl_driver& d, const Bytes& program) {
  check_program(d, program);
  check_bad_programs(d, program);
  char error[256] = "";
  gadl_device *device = nullptr, *other = nullptr;
  if (d.open(program.data(), program.size(), nullptr, &device, error, sizeof(error)) != GADL_OK ||
      d.open(program.data(), program.size(), nullptr, &other, error, sizeof(error)) != GADL_OK) {
    expect(false, d, error);
    return;
  }
  check_runs(d, device);
  check_counters(d, device);
  check_memory(d, device);
  d.close(device);
  check_runs(d, other);  // closing one device leaves the other alone
  d.close(other);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc % 2 == 0 || gadl_find_driver("no such driver") != nullptr || gadl_find_driver(nullptr) != nullptr) return 2;
  for (int i = 1; i < argc; i += 2) {
    const gadl_driver* driver = gadl_find_driver(argv[i]);
    std::ifstream file(argv[i + 1], std::ios::binary);
    const Bytes program{std::istreambuf_iterator<char>(file), {}};
    if (driver == nullptr || program.empty()) return 2;
    check(*driver, program);
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
