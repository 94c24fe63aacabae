// SPDX-License-Identifier: Apache-2.0
// The simulator as a device driver.
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "drivers.hpp"
#include "simulator.hpp"

using gadl::npu::Binding;
using gadl::npu::Options;
using gadl::npu::Report;
using gadl::npu::Simulator;

struct gadl_device {
  std::unique_ptr<Simulator> simulator;
  Options options;
  std::vector<std::vector<uint8_t>> regions;
  std::map<uint64_t, std::vector<uint8_t>> blocks;
  Report report;
  std::string error;
};

namespace {

gadl_status open(const void* program, uint64_t size, const gadl_options* options, gadl_device** device, char* error, size_t error_size) {
  try {
    auto made = std::make_unique<gadl_device>();
    made->simulator = std::make_unique<Simulator>(static_cast<const uint8_t*>(program), size);
    made->options.races = options == nullptr || options->skip_checks == 0;
    made->regions.resize(gadl::npu::kRegions);
    for (int i = 1; i < gadl::npu::kRegions; ++i) {
      made->regions[i].resize(made->simulator->program().region_sizes[i]);
      made->simulator->bind_region(i, made->regions[i].data(), made->regions[i].size());
    }
    *device = made.release();
    return GADL_OK;
  } catch (const std::exception& e) {
    std::snprintf(error, error_size, "%s", e.what());
    return GADL_ERROR_FORMAT;
  }
}

void close(gadl_device* device) { delete device; }

gadl_status info(gadl_device* device, gadl_device_info* out) {
  if (out->struct_size < sizeof(gadl_device_info)) return GADL_ERROR_ARGUMENT;
  const auto& program = device->simulator->program();
  out->input_count = static_cast<uint32_t>(program.inputs.size());
  out->output_count = static_cast<uint32_t>(program.outputs.size());
  out->memory_bytes = 0;
  for (uint64_t size : program.region_sizes) out->memory_bytes += size;
  return GADL_OK;
}

gadl_status alloc(gadl_device* device, uint64_t size, uint64_t* handle) {
  try {
    *handle = device->blocks.empty() ? 1 : device->blocks.rbegin()->first + 1;
    device->blocks[*handle].resize(size);
    return GADL_OK;
  } catch (const std::exception&) {
    device->error = "out of memory";
    return GADL_ERROR_MEMORY;
  }
}

gadl_status release(gadl_device* device, uint64_t handle) { return device->blocks.erase(handle) == 1 ? GADL_OK : GADL_ERROR_ARGUMENT; }

void* map(gadl_device* device, uint64_t handle) {
  const auto found = device->blocks.find(handle);
  return found == device->blocks.end() ? nullptr : found->second.data();
}

gadl_status copy(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size) {
  const auto& program = device->simulator->program();
  const auto& list = direction == GADL_TO_DEVICE ? program.inputs : program.outputs;
  if (index >= list.size() || list[index].size != size || list[index].region == 0) {
    device->error = "an input or output has another size than the program says";
    return GADL_ERROR_ARGUMENT;
  }
  const Binding& b = list[index];
  uint8_t* memory = device->regions[b.region].data() + b.offset;
  if (size > 0) {
    if (direction == GADL_TO_DEVICE) std::memcpy(memory, data, size);
    else std::memcpy(data, memory, size);
  }
  return GADL_OK;
}

gadl_status submit(gadl_device* device) {
  try {
    device->report = device->simulator->run(device->options);
    return GADL_OK;
  } catch (const std::exception& e) {
    device->error = e.what();
    return GADL_ERROR_DEVICE;
  }
}

gadl_status wait(gadl_device*) { return GADL_OK; }

gadl_status counters(gadl_device* device, gadl_counters* out) {
  if (out->struct_size < sizeof(gadl_counters)) return GADL_ERROR_ARGUMENT;
  out->cycles = device->report.cycles;
  out->dram_read_bytes = device->report.dram_read_bytes;
  out->dram_write_bytes = device->report.dram_write_bytes;
  out->macs = device->report.macs;
  return GADL_OK;
}

const char* last_error(gadl_device* device) { return device->error.c_str(); }

}  // namespace

const gadl_driver& gadl_sim_driver() {
  static const gadl_driver driver = {sizeof(gadl_driver), "sim", open, close, info, alloc, release, map, copy, submit, wait, counters, last_error};
  return driver;
}
