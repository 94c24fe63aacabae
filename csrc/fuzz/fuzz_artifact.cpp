// SPDX-License-Identifier: Apache-2.0
// Any bytes either load and run, or are refused. Checksums are mended first, so that mutations reach what lies behind them.
#include <array>
#include <cstring>
#include <vector>

#include "gadl/gadl.h"

namespace {

uint32_t crc32(const uint8_t* data, uint64_t size) {
  uint32_t c = 0xFFFFFFFFu;
  for (uint64_t i = 0; i < size; ++i) {
    c ^= data[i];
    for (int k = 0; k < 8; ++k) c = (c & 1) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
  }
  return ~c;
}

void mend(std::vector<uint8_t>& data) {
  if (data.size() < GADL_HEADER_BYTES) return;
  const uint64_t size = data.size();
  std::memcpy(&data[24], &size, 8);
  uint32_t sections;
  std::memcpy(&sections, &data[16], 4);
  for (uint64_t i = 0; i < sections && GADL_HEADER_BYTES + (i + 1) * GADL_ENTRY_BYTES <= size; ++i) {
    uint8_t* entry = &data[GADL_HEADER_BYTES + i * GADL_ENTRY_BYTES];
    uint64_t offset, length;
    std::memcpy(&offset, entry + 24, 8);
    std::memcpy(&length, entry + 32, 8);
    if (offset > size || length > size - offset) continue;
    const uint32_t crc = crc32(data.data() + offset, length);
    std::memcpy(entry + 20, &crc, 4);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  std::vector<uint8_t> data(bytes, bytes + size);
  mend(data);
  gadl_model* model = nullptr;
  if (gadl_model_open_memory(data.data(), data.size(), &model) != GADL_OK) return 0;
  gadl_context* context = nullptr;
  if (gadl_model_context_bytes(model) < (uint64_t{1} << 28) && gadl_context_create(model, nullptr, &context) == GADL_OK) {
    gadl_context_run(context);
    gadl_context_destroy(context);
  }
  gadl_model_close(model);
  return 0;
}
