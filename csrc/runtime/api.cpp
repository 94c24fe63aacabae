// SPDX-License-Identifier: Apache-2.0
// The C ABI: no exception leaves it.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "gadl/gadl.h"
#include "model.hpp"

namespace {

thread_local std::string open_error;

gadl_status failed(gadl_status status, const std::string& text) {
  open_error = text;
  return status;
}

// Runs `body` and turns what it throws into a status.
template <class F>
gadl_status guarded(std::string& error, F body) {
  try {
    return body();
  } catch (const gadl::VersionError& e) {
    error = e.what();
    return GADL_ERROR_VERSION;
  } catch (const gadl::ModelError& e) {
    error = e.what();
    return GADL_ERROR_FORMAT;
  } catch (const std::bad_alloc&) {
    error = "out of memory";
    return GADL_ERROR_MEMORY;
  } catch (const std::exception& e) {
    error = e.what();
    return GADL_ERROR_FORMAT;
  }
}

struct Mapping {
  void* data = nullptr;
  uint64_t size = 0;
  ~Mapping() {
#if defined(__unix__) || defined(__APPLE__)
    if (data != nullptr) munmap(data, size);
#endif
  }
};

struct Free {
  void operator()(uint8_t* p) const { std::free(p); }
};
using Memory = std::unique_ptr<uint8_t, Free>;

Memory allocate(uint64_t size) {
  void* p = nullptr;
  const uint64_t rounded = (size + GADL_ALIGNMENT) / GADL_ALIGNMENT * GADL_ALIGNMENT;
  p = std::aligned_alloc(GADL_ALIGNMENT, rounded);
  if (p == nullptr) throw std::bad_alloc();
  std::memset(p, 0, rounded);
  return Memory(static_cast<uint8_t*>(p));
}

}  // namespace

struct gadl_model {
  Mapping mapping;
  gadl::LoadedModel loaded;
};

struct gadl_context {
  const gadl::LoadedModel* model = nullptr;
  const gadl_driver* driver = nullptr;
  Memory arena, scratch;
  std::vector<gadl_device*> devices;
  // Pointers of every step's operands and results, laid out when the context is made.
  std::vector<std::vector<const uint8_t*>> inputs;
  std::vector<std::vector<uint8_t*>> outputs;
  std::vector<uint64_t> times;
  std::string error;

  ~gadl_context() {
    for (gadl_device* device : devices)
      if (device != nullptr) driver->close(device);
  }
  uint8_t* address(uint32_t id) const {
    const gadl::Tensor& t = model->tensors[id];
    return t.storage == GADL_STORAGE_WEIGHTS ? const_cast<uint8_t*>(model->weights.data) + t.offset : arena.get() + t.offset;
  }
};

namespace {

gadl_status tensor_info(const gadl_model* model, uint32_t id, const char* name, gadl_tensor_info* info) {
  if (info == nullptr || info->struct_size < sizeof(gadl_tensor_info)) return failed(GADL_ERROR_ARGUMENT, "struct_size is not set");
  const gadl::TensorInfo& t = model->loaded.tensors[id].info;
  info->name = name;
  info->dtype = t.dtype;
  info->layout = t.layout;
  info->rank = static_cast<uint32_t>(t.rank());
  info->dims = t.dims.data();
  info->size_bytes = static_cast<uint64_t>(t.bytes());
  info->scale_count = static_cast<uint32_t>(t.scales.size());
  info->scales = t.scales.data();
  info->zero_point = t.zero_point;
  return GADL_OK;
}

gadl_status run_segment(gadl_context* c, const gadl::Step& step, std::size_t number) {
  gadl_device* device = c->devices[step.segment];
  const auto size = [&](uint32_t id) { return static_cast<uint64_t>(c->model->tensors[id].info.bytes()); };
  gadl_status status = GADL_OK;
  for (uint32_t i = 0; i < step.operands.size() && status == GADL_OK; ++i) {
    status = c->driver->copy(device, GADL_TO_DEVICE, i, const_cast<uint8_t*>(c->inputs[number][i]), size(step.operands[i]));
  }
  if (status == GADL_OK) status = c->driver->submit(device);
  if (status == GADL_OK) status = c->driver->wait(device);
  for (uint32_t i = 0; i < step.results.size() && status == GADL_OK; ++i) {
    status = c->driver->copy(device, GADL_FROM_DEVICE, i, c->outputs[number][i], size(step.results[i]));
  }
  if (status != GADL_OK) c->error = c->driver->last_error(device);
  return status;
}

void open_devices(gadl_context* c, const gadl_options* options) {
  if (c->model->programs.empty()) return;
  c->driver = gadl_find_driver("sim");
  if (c->driver == nullptr) throw gadl::ModelError("this runtime has no driver 'sim'");
  for (const gadl::Bytes& program : c->model->programs) {
    gadl_device* device = nullptr;
    char text[512] = "";
    if (c->driver->open(program.data, program.size, options, &device, text, sizeof(text)) != GADL_OK) throw gadl::ModelError(std::string("a device program: ") + text);
    c->devices.push_back(device);
  }
  for (const gadl::Step& step : c->model->steps) {
    if (!step.is_segment) continue;
    gadl_device_info info{};
    info.struct_size = sizeof(info);
    c->driver->info(c->devices[step.segment], &info);
    if (info.input_count != step.operands.size() || info.output_count != step.results.size()) throw gadl::ModelError("a device program has other inputs or outputs than the schedule says");
  }
}

}  // namespace

extern "C" {

const char* gadl_version(void) { return "0.1.0"; }

const char* gadl_status_text(gadl_status status) {
  switch (status) {
    case GADL_OK: return "ok";
    case GADL_ERROR_ARGUMENT: return "bad argument";
    case GADL_ERROR_FILE: return "file cannot be opened";
    case GADL_ERROR_FORMAT: return "not a sound artefact";
    case GADL_ERROR_VERSION: return "artefact is newer than the runtime";
    case GADL_ERROR_MEMORY: return "out of memory";
    case GADL_ERROR_DEVICE: return "device error";
  }
  return "unknown status";
}

const char* gadl_last_error(const gadl_context* context) { return context != nullptr ? context->error.c_str() : open_error.c_str(); }

gadl_status gadl_model_open_memory(const void* data, uint64_t size, gadl_model** model) {
  if (data == nullptr || model == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  *model = nullptr;
  return guarded(open_error, [&] {
    auto made = std::make_unique<gadl_model>();
    made->loaded = gadl::load_model(static_cast<const uint8_t*>(data), size);
    *model = made.release();
    return GADL_OK;
  });
}

gadl_status gadl_model_open_file(const char* path, gadl_model** model) {
  if (path == nullptr || model == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  *model = nullptr;
  return guarded(open_error, [&]() -> gadl_status {
    auto made = std::make_unique<gadl_model>();
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return failed(GADL_ERROR_FILE, std::string("cannot open ") + path);
    struct stat status {};
    if (fstat(file, &status) != 0 || status.st_size <= 0) {
      close(file);
      return failed(GADL_ERROR_FILE, std::string("cannot read ") + path);
    }
    void* data = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (data == MAP_FAILED) return failed(GADL_ERROR_FILE, std::string("cannot map ") + path);
    made->mapping.data = data;
    made->mapping.size = static_cast<uint64_t>(status.st_size);
    made->loaded = gadl::load_model(static_cast<const uint8_t*>(data), made->mapping.size);
    *model = made.release();
    return GADL_OK;
  });
}

void gadl_model_close(gadl_model* model) { delete model; }
uint32_t gadl_model_input_count(const gadl_model* model) { return static_cast<uint32_t>(model->loaded.inputs.size()); }
uint32_t gadl_model_output_count(const gadl_model* model) { return static_cast<uint32_t>(model->loaded.outputs.size()); }
uint32_t gadl_model_tensor_count(const gadl_model* model) { return static_cast<uint32_t>(model->loaded.tensors.size()); }

gadl_status gadl_model_input_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info) {
  if (model == nullptr || index >= model->loaded.inputs.size()) return failed(GADL_ERROR_ARGUMENT, "there is no such input");
  const auto& [name, id] = model->loaded.inputs[index];
  return tensor_info(model, id, name.c_str(), info);
}

gadl_status gadl_model_output_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info) {
  if (model == nullptr || index >= model->loaded.outputs.size()) return failed(GADL_ERROR_ARGUMENT, "there is no such output");
  const auto& [name, id] = model->loaded.outputs[index];
  return tensor_info(model, id, name.c_str(), info);
}

gadl_status gadl_model_tensor_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info) {
  if (model == nullptr || index >= model->loaded.tensors.size()) return failed(GADL_ERROR_ARGUMENT, "there is no such tensor");
  return tensor_info(model, index, model->loaded.tensors[index].info.name.c_str(), info);
}

uint64_t gadl_model_context_bytes(const gadl_model* model) { return model->loaded.arena_bytes + model->loaded.scratch_bytes; }

gadl_status gadl_context_create(const gadl_model* model, const gadl_options* options, gadl_context** context) {
  if (model == nullptr || context == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  if (options != nullptr && options->struct_size < sizeof(gadl_options)) return failed(GADL_ERROR_ARGUMENT, "struct_size is not set");
  *context = nullptr;
  return guarded(open_error, [&] {
    auto made = std::make_unique<gadl_context>();
    made->model = &model->loaded;
    made->arena = allocate(model->loaded.arena_bytes);
    made->scratch = allocate(model->loaded.scratch_bytes);
    open_devices(made.get(), options);
    for (const gadl::Step& step : model->loaded.steps) {
      std::vector<const uint8_t*> in;
      std::vector<uint8_t*> out;
      for (uint32_t id : step.operands) in.push_back(id == GADL_NO_TENSOR ? nullptr : made->address(id));
      for (uint32_t id : step.results) out.push_back(made->address(id));
      made->inputs.push_back(std::move(in));
      made->outputs.push_back(std::move(out));
    }
    made->times.assign(model->loaded.steps.size(), 0);
    *context = made.release();
    return GADL_OK;
  });
}

void gadl_context_destroy(gadl_context* context) { delete context; }

void* gadl_context_input(gadl_context* context, uint32_t index) {
  return index < context->model->inputs.size() ? context->address(context->model->inputs[index].second) : nullptr;
}
const void* gadl_context_output(const gadl_context* context, uint32_t index) {
  return index < context->model->outputs.size() ? context->address(context->model->outputs[index].second) : nullptr;
}
const void* gadl_context_tensor(const gadl_context* context, uint32_t index) {
  return index < context->model->tensors.size() ? context->address(index) : nullptr;
}

gadl_status gadl_context_run(gadl_context* context) {
  if (context == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  return guarded(context->error, [&] {
    const auto& steps = context->model->steps;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto start = std::chrono::steady_clock::now();
      if (steps[i].is_segment) {
        const gadl_status status = run_segment(context, steps[i], i);
        if (status != GADL_OK) return status;
      } else {
        steps[i].kernel.run(context->inputs[i].data(), context->outputs[i].data(), context->scratch.get());
      }
      context->times[i] = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count());
    }
    return GADL_OK;
  });
}

gadl_status gadl_context_counters(const gadl_context* context, gadl_counters* counters) {
  if (context == nullptr || counters == nullptr || counters->struct_size < sizeof(gadl_counters)) return failed(GADL_ERROR_ARGUMENT, "struct_size is not set");
  *counters = gadl_counters{sizeof(gadl_counters), 0, 0, 0, 0};
  for (gadl_device* device : context->devices) {
    gadl_counters one{};
    one.struct_size = sizeof(one);
    context->driver->counters(device, &one);
    counters->cycles += one.cycles;
    counters->dram_read_bytes += one.dram_read_bytes;
    counters->dram_write_bytes += one.dram_write_bytes;
    counters->macs += one.macs;
  }
  return GADL_OK;
}

uint32_t gadl_context_step_count(const gadl_context* context) { return static_cast<uint32_t>(context->model->steps.size()); }

gadl_status gadl_context_step_info(const gadl_context* context, uint32_t index, gadl_step_info* info) {
  if (context == nullptr || info == nullptr || info->struct_size < sizeof(gadl_step_info) || index >= context->model->steps.size()) {
    return failed(GADL_ERROR_ARGUMENT, "there is no such step");
  }
  const gadl::Step& step = context->model->steps[index];
  info->name = step.name.c_str();
  info->result = step.result.c_str();
  info->time_ns = context->times[index];
  return GADL_OK;
}

}  // extern "C"
