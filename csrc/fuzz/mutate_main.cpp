// SPDX-License-Identifier: Apache-2.0
// usage: fuzz_x RUNS SEED_FILE…: feeds the seeds, then RUNS seeded mutations of them.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::vector<std::vector<uint8_t>> seeds;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>{});
    if (seeds.back().empty()) return 2;
    LLVMFuzzerTestOneInput(seeds.back().data(), seeds.back().size());
  }
  std::mt19937_64 random(1);
  for (int run = 0; run < std::atoi(argv[1]); ++run) {
    std::vector<uint8_t> data = seeds[random() % seeds.size()];
    for (uint64_t n = 1 + random() % 6; n > 0 && !data.empty(); --n) {
      const size_t at = random() % data.size();
      switch (random() % 4) {
        case 0: data[at] ^= static_cast<uint8_t>(1u << (random() % 8)); break;
        case 1: data[at] = static_cast<uint8_t>(random()); break;
        case 2:
          for (size_t i = at; i < data.size() && i < at + 8; ++i) data[i] = 0xFF;
          break;
        default: data.resize(at + 1); break;
      }
    }
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  std::printf("%s runs\n", argv[1]);
  return 0;
}
