// SPDX-License-Identifier: Apache-2.0
// What every driver must do, run against every driver. Argument: a program of one input and one output of 256 bytes each.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "gadl/driver.h"

namespace {

int failures = 0;

void expect(bool condition, const char* driver, const char* what) {
  if (condition) return;
  std::printf("FAILED %s: %s\n", driver, what);
  ++failures;
}

void check(const gadl_driver& d, const std::vector<unsigned char>& program) {
  char error[256] = "";
  gadl_device* device = nullptr;
  expect(d.open("junk", 4, nullptr, &device, error, sizeof(error)) != GADL_OK && device == nullptr && error[0] != 0, d.name, "junk is refused with a text");
  for (size_t size = 0; size < program.size(); size += 97) {
    expect(d.open(program.data(), size, nullptr, &device, error, sizeof(error)) != GADL_OK, d.name, "a truncated program is refused");
  }
  if (d.open(program.data(), program.size(), nullptr, &device, error, sizeof(error)) != GADL_OK) {
    expect(false, d.name, error);
    return;
  }
  gadl_device_info info{};
  expect(d.info(device, &info) == GADL_ERROR_ARGUMENT, d.name, "info without struct_size is refused");
  info.struct_size = sizeof(info);
  expect(d.info(device, &info) == GADL_OK && info.input_count == 1 && info.output_count == 1, d.name, "info");
  std::vector<unsigned char> in(256), out(256);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<unsigned char>(i * 7 + 3);
  expect(d.copy(device, GADL_TO_DEVICE, 1, in.data(), in.size()) != GADL_OK, d.name, "an input that is not there is refused");
  expect(d.copy(device, GADL_TO_DEVICE, 0, in.data(), 17) != GADL_OK && d.last_error(device)[0] != 0, d.name, "another size is refused with a text");
  for (int run = 0; run < 2; ++run) {
    in[0] = static_cast<unsigned char>(run);
    expect(d.copy(device, GADL_TO_DEVICE, 0, in.data(), in.size()) == GADL_OK, d.name, "copy to the device");
    expect(d.submit(device) == GADL_OK && d.wait(device) == GADL_OK, d.name, "submit and wait");
    expect(d.copy(device, GADL_FROM_DEVICE, 0, out.data(), out.size()) == GADL_OK && out == in, d.name, "the program copies its input");
  }
  gadl_counters counters{};
  counters.struct_size = sizeof(counters);
  expect(d.counters(device, &counters) == GADL_OK && counters.cycles > 0 && counters.dram_read_bytes == 256 && counters.dram_write_bytes == 256, d.name, "counters");
  uint64_t handle = 0;
  expect(d.alloc(device, 128, &handle) == GADL_OK && d.map(device, handle) != nullptr, d.name, "alloc and map");
  std::memset(d.map(device, handle), 1, 128);
  expect(d.free(device, handle) == GADL_OK && d.free(device, handle) != GADL_OK && d.map(device, handle) == nullptr, d.name, "free once");
  d.close(device);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<unsigned char> program{std::istreambuf_iterator<char>(file), {}};
  if (program.empty() || gadl_find_driver("no such driver") != nullptr) return 2;
  for (const char* name : {"sim"}) check(*gadl_find_driver(name), program);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
