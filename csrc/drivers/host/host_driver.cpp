// SPDX-License-Identifier: Apache-2.0
// This processor as a device: its programs are artefacts that run on host kernels alone.
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "blocks.hpp"
#include "executor.hpp"

using gadl::LoadedModel;

namespace {

struct HostDevice {
  explicit HostDevice(LoadedModel model) : executor(std::make_shared<const LoadedModel>(std::move(model)), gadl_options{}) {}
  gadl::Executor executor;
  gadl::Blocks blocks;
  std::string error;
};

HostDevice* of(gadl_device* device) { return reinterpret_cast<HostDevice*>(device); }

template <class F>
gadl_status guarded(char* error, size_t error_size, F body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    std::snprintf(error, error_size, "out of memory");
    return GADL_ERROR_MEMORY;
  } catch (const std::exception& e) {
    std::snprintf(error, error_size, "%s", e.what());
    return GADL_ERROR_FORMAT;
  }
}

LoadedModel load(const void* program, uint64_t size) {
  return gadl::load_model(static_cast<const uint8_t*>(program), size, gadl::Devices::NONE);
}

int accepts(const void* program, uint64_t size) { return size >= 4 && std::memcmp(program, GADL_MAGIC, 4) == 0; }

gadl_status info(const void* program, uint64_t size, gadl_program_info* out, char* error, size_t error_size) {
  if (out->struct_size < sizeof(gadl_program_info)) return GADL_ERROR_ARGUMENT;
  return guarded(error, error_size, [&] {
    const LoadedModel model = load(program, size);
    out->input_count = static_cast<uint32_t>(model.inputs.size());
    out->output_count = static_cast<uint32_t>(model.outputs.size());
    out->memory_bytes = model.arena_bytes + model.scratch_bytes;
    uint32_t n = 0;
    for (const auto* list : {&model.inputs, &model.outputs})
      for (const auto& [name, id] : *list)
        if (n < out->size_count) out->sizes[n++] = static_cast<uint64_t>(model.tensors[id].info.bytes());
    return GADL_OK;
  });
}

gadl_status open(const void* program, uint64_t size, const gadl_options*, gadl_device** device, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    *device = reinterpret_cast<gadl_device*>(new HostDevice(load(program, size)));
    return GADL_OK;
  });
}

void close(gadl_device* device) { delete of(device); }
gadl_status alloc(gadl_device* device, uint64_t size, uint64_t* handle) { return of(device)->blocks.alloc(size, handle, of(device)->error); }
gadl_status release(gadl_device* device, uint64_t handle) { return of(device)->blocks.release(handle); }
void* map(gadl_device* device, uint64_t handle) { return of(device)->blocks.map(handle); }

gadl_status copy(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size) {
  const gadl::Executor& executor = of(device)->executor;
  const auto& list = direction == GADL_TO_DEVICE ? executor.model().inputs : executor.model().outputs;
  if (index >= list.size() || static_cast<uint64_t>(executor.model().tensors[list[index].second].info.bytes()) != size) {
    of(device)->error = "an input or output has another size than the program says";
    return GADL_ERROR_ARGUMENT;
  }
  uint8_t* memory = executor.address(list[index].second);
  if (size == 0) return GADL_OK;
  if (direction == GADL_TO_DEVICE) std::memcpy(memory, data, size);
  else std::memcpy(data, memory, size);
  return GADL_OK;
}

gadl_status submit(gadl_device* device) {
  char text[512] = "";
  const gadl_status status = guarded(text, sizeof(text), [&] { return of(device)->executor.run(of(device)->error); });
  if (text[0] != 0) of(device)->error = text;
  return status;
}
gadl_status wait(gadl_device*) { return GADL_OK; }
gadl_status counters(gadl_device*, gadl_counters* out) { return out->struct_size < sizeof(gadl_counters) ? GADL_ERROR_ARGUMENT : GADL_OK; }
const char* last_error(gadl_device* device) { return of(device)->error.c_str(); }

}  // namespace

extern "C" const gadl_driver gadl_host_driver;
const gadl_driver gadl_host_driver = {sizeof(gadl_driver), "host", accepts, info, open, close, alloc, release, map, copy, submit, wait, counters, last_error};
