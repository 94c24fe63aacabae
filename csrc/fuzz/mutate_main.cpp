// SPDX-License-Identifier: Apache-2.0
// usage: fuzz_x RUNS[:RANDOM_SEED] FILE…: feeds the files, then RUNS mutations of them.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// Changes a few places: bits, bytes, runs, pieces of the file itself. Few mutations cut the file short, which hides the rest.
void mutate(std::vector<uint8_t>& data, std::mt19937_64& random) {
  if (random() % 16 == 0) data.resize(random() % (data.size() + 1));
  for (uint64_t n = 1 + random() % 4; n > 0 && !data.empty(); --n) {
    const size_t at = random() % data.size();
    const size_t length = std::min<size_t>(size_t{1} << (random() % 4), data.size() - at);
    switch (random() % 6) {
      case 0: data[at] ^= static_cast<uint8_t>(1u << (random() % 8)); break;
      case 1: data[at] = static_cast<uint8_t>(random()); break;
      case 2: data[at] = static_cast<uint8_t>(random() % 10); break;
      case 3: std::memset(&data[at], 0xFF, length); break;
      case 4: std::memset(&data[at], 0, length); break;
      default: std::memmove(&data[at], &data[random() % (data.size() - length + 1)], length); break;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::vector<std::vector<uint8_t>> seeds;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>{});
    if (seeds.back().empty()) return 2;
    LLVMFuzzerTestOneInput(seeds.back().data(), seeds.back().size());
  }
  char* rest = nullptr;
  const long runs = std::strtol(argv[1], &rest, 10);
  std::mt19937_64 random(*rest == ':' ? std::strtoull(rest + 1, nullptr, 10) : 1);
  for (long run = 0; run < runs; ++run) {
    std::vector<uint8_t> data = seeds[random() % seeds.size()];
    mutate(data, random);
    LLVMFuzzerTestOneInput(data.data(), data.size());
  }
  std::printf("%ld runs\n", runs);
  return 0;
}
