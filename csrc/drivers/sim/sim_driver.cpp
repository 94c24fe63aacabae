// SPDX-License-Identifier: Apache-2.0
// The simulator as a device driver. Its programs are the containers of targets/npu/container.py.
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "blocks.hpp"
#include "error.hpp"
#include "simulator.hpp"

using gadl::npu::Binding;
using gadl::npu::kRegions;
using gadl::npu::Program;
using gadl::npu::Simulator;

namespace {

struct SimDevice {
  SimDevice(const uint8_t* program, uint64_t size) : simulator(program, size) {}
  Simulator simulator;
  gadl::npu::Options options;
  gadl::Memory regions[kRegions];
  gadl::Blocks blocks;
  gadl::npu::Report report;
  std::string error;
};

SimDevice* of(gadl_device* device) { return reinterpret_cast<SimDevice*>(device); }

// Constants are read where they lie in the program, so they are not counted.
uint64_t memory_bytes(const Program& program) {
  uint64_t sum = 0;
  for (int i = 1; i < kRegions; ++i) sum += program.region_sizes[i];
  return sum;
}

// Runs `body` and turns what it throws into a status and a text.
template <class F>
gadl_status guarded(char* error, size_t error_size, gadl_status otherwise, F body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    std::snprintf(error, error_size, "out of memory");
    return GADL_ERROR_MEMORY;
  } catch (const std::exception& e) {
    std::snprintf(error, error_size, "%s", e.what());
    return otherwise;
  }
}

int accepts(const void* program, uint64_t size) { return size >= 4 && std::memcmp(program, "GNPU", 4) == 0; }

gadl_status info(const void* program, uint64_t size, gadl_program_info* out, char* error, size_t error_size) {
  if (out->struct_size < sizeof(gadl_program_info)) return GADL_ERROR_ARGUMENT;
  return guarded(error, error_size, GADL_ERROR_FORMAT, [&] {
    const Program parsed = gadl::npu::parse_program(static_cast<const uint8_t*>(program), size);
    out->input_count = static_cast<uint32_t>(parsed.inputs.size());
    out->output_count = static_cast<uint32_t>(parsed.outputs.size());
    out->memory_bytes = memory_bytes(parsed);
    uint32_t n = 0;
    for (const auto* list : {&parsed.inputs, &parsed.outputs})
      for (const Binding& b : *list) {
        if (b.region == 0) throw gadl::npu::SimError("an input or output lies in the constants");
        if (n < out->size_count) out->sizes[n++] = b.size;
      }
    return GADL_OK;
  });
}

gadl_status open(const void* program, uint64_t size, const gadl_options* options, gadl_device** device, char* error, size_t error_size) {
  return guarded(error, error_size, GADL_ERROR_FORMAT, [&] {
    auto made = std::make_unique<SimDevice>(static_cast<const uint8_t*>(program), size);
    made->options.races = options == nullptr || options->skip_checks == 0;
    for (int i = 1; i < kRegions; ++i) {
      made->regions[i] = gadl::Memory(made->simulator.program().region_sizes[i]);
      made->simulator.bind_region(i, made->regions[i].data(), made->regions[i].size());
    }
    *device = reinterpret_cast<gadl_device*>(made.release());
    return GADL_OK;
  });
}

void close(gadl_device* device) { delete of(device); }
gadl_status alloc(gadl_device* device, uint64_t size, uint64_t* handle) { return of(device)->blocks.alloc(size, handle, of(device)->error); }
gadl_status release(gadl_device* device, uint64_t handle) { return of(device)->blocks.release(handle); }
void* map(gadl_device* device, uint64_t handle) { return of(device)->blocks.map(handle); }

gadl_status copy(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size) {
  const Program& program = of(device)->simulator.program();
  const auto& list = direction == GADL_TO_DEVICE ? program.inputs : program.outputs;
  if (index >= list.size() || list[index].size != size || list[index].region == 0) {
    of(device)->error = "an input or output has another size than the program says";
    return GADL_ERROR_ARGUMENT;
  }
  uint8_t* memory = of(device)->regions[list[index].region].data() + list[index].offset;
  if (size == 0) return GADL_OK;
  if (direction == GADL_TO_DEVICE) std::memcpy(memory, data, size);
  else std::memcpy(data, memory, size);
  return GADL_OK;
}

gadl_status submit(gadl_device* device) {
  char text[512] = "";
  const gadl_status status = guarded(text, sizeof(text), GADL_ERROR_DEVICE, [&] {
    of(device)->report = of(device)->simulator.run(of(device)->options);
    return GADL_OK;
  });
  if (status != GADL_OK) of(device)->error = text;
  return status;
}

gadl_status wait(gadl_device*) { return GADL_OK; }

gadl_status counters(gadl_device* device, gadl_counters* out) {
  if (out->struct_size < sizeof(gadl_counters)) return GADL_ERROR_ARGUMENT;
  const gadl::npu::Report& report = of(device)->report;
  out->cycles = report.cycles;
  out->dram_read_bytes = report.dram_read_bytes;
  out->dram_write_bytes = report.dram_write_bytes;
  out->macs = report.macs;
  return GADL_OK;
}

const char* last_error(gadl_device* device) { return of(device)->error.c_str(); }

}  // namespace

extern "C" const gadl_driver gadl_sim_driver;
const gadl_driver gadl_sim_driver = {sizeof(gadl_driver), "sim", accepts, info, open, close, alloc, release, map, copy, submit, wait, counters, last_error};
