// SPDX-License-Identifier: Apache-2.0
// The C ABI: no exception leaves it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

#include "executor.hpp"
#include "gadl/gadl.h"

namespace {

thread_local std::string open_error;

// Keeps the text where memory for it can be had.
gadl_status keep(std::string& error, gadl_status status, const char* text) noexcept {
  try {
    error = text;
  } catch (const std::exception&) {
    error.clear();
  }
  return status;
}

gadl_status failed(gadl_status status, const char* text) noexcept { return keep(open_error, status, text); }

// Runs `body` and turns what it throws into a status.
template <class F>
gadl_status guarded(std::string& error, F body) noexcept {
  try {
    return body();
  } catch (const gadl::VersionError& e) {
    return keep(error, GADL_ERROR_VERSION, e.what());
  } catch (const gadl::DeviceError& e) {
    return keep(error, GADL_ERROR_DEVICE, e.what());
  } catch (const gadl::ModelError& e) {
    return keep(error, GADL_ERROR_FORMAT, e.what());
  } catch (const std::bad_alloc&) {
    return keep(error, GADL_ERROR_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return keep(error, GADL_ERROR_FORMAT, e.what());
  }
}

// A file's bytes, read only.
struct Mapping {
  const uint8_t* data = nullptr;
  uint64_t size = 0;

  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data != nullptr) munmap(const_cast<uint8_t*>(data), size);
  }
  bool open(const char* path) {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    struct stat status {};
    const bool sound = fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
    void* found = sound ? mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (found == MAP_FAILED) return false;
    data = static_cast<const uint8_t*>(found);
    size = static_cast<uint64_t>(status.st_size);
    return true;
  }
};

// Fills a struct that the caller's header may know in an older, shorter form; `first` is the size of the oldest form.
template <class T>
gadl_status give(T* out, T full, std::size_t first) {
  if (out == nullptr || out->struct_size < first) return failed(GADL_ERROR_ARGUMENT, "a struct is null or its struct_size is not set");
  full.struct_size = out->struct_size;
  std::memcpy(out, &full, std::min<std::size_t>(out->struct_size, sizeof(T)));
  return GADL_OK;
}

// The bytes of a file with the model made from them.
struct OpenFile {
  Mapping mapping;
  gadl::LoadedModel loaded;
};

}  // namespace

struct gadl_model {
  std::shared_ptr<const gadl::LoadedModel> loaded;
};

struct gadl_context {
  gadl_context(std::shared_ptr<const gadl::LoadedModel> model, const gadl_options& options) : executor(std::move(model), options) {}
  gadl::Executor executor;
  std::string error;
};

namespace {

constexpr std::size_t kFirstOptions = offsetof(gadl_options, driver);
constexpr std::size_t kFirstTensorInfo = sizeof(gadl_tensor_info);
constexpr std::size_t kFirstCounters = sizeof(gadl_counters);
constexpr std::size_t kFirstStepInfo = sizeof(gadl_step_info);

gadl_status tensor_info(const gadl::LoadedModel& model, uint32_t id, const char* name, gadl_tensor_info* info) {
  const gadl::TensorInfo& t = model.tensors[id].info;
  gadl_tensor_info full{};
  full.name = name;
  full.dtype = t.dtype;
  full.layout = t.layout;
  full.rank = static_cast<uint32_t>(t.rank());
  full.dims = t.dims.data();
  full.size_bytes = static_cast<uint64_t>(t.bytes());
  full.scale_count = static_cast<uint32_t>(t.scales.size());
  full.scales = t.scales.data();
  full.zero_point = t.zero_point;
  return give(info, full, kFirstTensorInfo);
}

using Interface = std::vector<std::pair<std::string, uint32_t>>;

gadl_status interface_info(const gadl_model* model, const Interface gadl::LoadedModel::*list, uint32_t index, gadl_tensor_info* info) {
  if (model == nullptr || index >= ((*model->loaded).*list).size()) return failed(GADL_ERROR_ARGUMENT, "there is no such input or output");
  const auto& [name, id] = ((*model->loaded).*list)[index];
  return tensor_info(*model->loaded, id, name.c_str(), info);
}

uint8_t* interface_address(const gadl_context* context, const Interface gadl::LoadedModel::*list, uint32_t index) {
  if (context == nullptr) return nullptr;
  const Interface& found = context->executor.model().*list;
  return index < found.size() ? context->executor.address(found[index].second) : nullptr;
}

}  // namespace

extern "C" {

const char* gadl_version(void) { return GADL_VERSION; }

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
    made->loaded = std::make_shared<gadl::LoadedModel>(gadl::load_model(static_cast<const uint8_t*>(data), size));
    *model = made.release();
    return GADL_OK;
  });
}

gadl_status gadl_model_open_file(const char* path, gadl_model** model) {
  if (path == nullptr || model == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  *model = nullptr;
  return guarded(open_error, [&]() -> gadl_status {
    auto file = std::make_shared<OpenFile>();
    if (!file->mapping.open(path)) return failed(GADL_ERROR_FILE, (std::string("cannot read ") + path).c_str());
    file->loaded = gadl::load_model(file->mapping.data, file->mapping.size);
    auto made = std::make_unique<gadl_model>();
    const gadl::LoadedModel* loaded = &file->loaded;
    made->loaded = std::shared_ptr<const gadl::LoadedModel>(std::move(file), loaded);
    *model = made.release();
    return GADL_OK;
  });
}

void gadl_model_close(gadl_model* model) { delete model; }

uint32_t gadl_model_input_count(const gadl_model* model) { return model == nullptr ? 0 : static_cast<uint32_t>(model->loaded->inputs.size()); }
uint32_t gadl_model_output_count(const gadl_model* model) { return model == nullptr ? 0 : static_cast<uint32_t>(model->loaded->outputs.size()); }
uint32_t gadl_model_tensor_count(const gadl_model* model) { return model == nullptr ? 0 : static_cast<uint32_t>(model->loaded->tensors.size()); }

gadl_status gadl_model_input_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info) {
  return interface_info(model, &gadl::LoadedModel::inputs, index, info);
}
gadl_status gadl_model_output_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info) {
  return interface_info(model, &gadl::LoadedModel::outputs, index, info);
}
gadl_status gadl_model_tensor_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info) {
  if (model == nullptr || index >= model->loaded->tensors.size()) return failed(GADL_ERROR_ARGUMENT, "there is no such tensor");
  return tensor_info(*model->loaded, index, model->loaded->tensors[index].info.name.c_str(), info);
}

uint64_t gadl_model_context_bytes(const gadl_model* model) {
  return model == nullptr ? 0 : model->loaded->arena_bytes + model->loaded->scratch_bytes + model->loaded->device_bytes;
}

gadl_status gadl_context_create(const gadl_model* model, const gadl_options* options, gadl_context** context) {
  if (model == nullptr || context == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  if (options != nullptr && options->struct_size < kFirstOptions) return failed(GADL_ERROR_ARGUMENT, "struct_size is not set");
  *context = nullptr;
  return guarded(open_error, [&] {
    gadl_options chosen{};
    if (options != nullptr) std::memcpy(&chosen, options, std::min<std::size_t>(options->struct_size, sizeof(chosen)));
    chosen.struct_size = sizeof(chosen);
    *context = new gadl_context(model->loaded, chosen);
    return GADL_OK;
  });
}

void gadl_context_destroy(gadl_context* context) { delete context; }

void* gadl_context_input(gadl_context* context, uint32_t index) { return interface_address(context, &gadl::LoadedModel::inputs, index); }
const void* gadl_context_output(const gadl_context* context, uint32_t index) { return interface_address(context, &gadl::LoadedModel::outputs, index); }
const void* gadl_context_tensor(const gadl_context* context, uint32_t index) {
  return context != nullptr && index < context->executor.model().tensors.size() ? context->executor.address(index) : nullptr;
}

gadl_status gadl_context_run(gadl_context* context) {
  if (context == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  return guarded(context->error, [&] { return context->executor.run(context->error); });
}

gadl_status gadl_context_counters(const gadl_context* context, gadl_counters* counters) {
  if (context == nullptr) return failed(GADL_ERROR_ARGUMENT, "a pointer is null");
  gadl_counters full{};
  const gadl_status status = context->executor.counters(full);
  return status == GADL_OK ? give(counters, full, kFirstCounters) : failed(status, "the driver gives no counters");
}

uint32_t gadl_context_step_count(const gadl_context* context) {
  return context == nullptr ? 0 : static_cast<uint32_t>(context->executor.model().steps.size());
}

gadl_status gadl_context_step_info(const gadl_context* context, uint32_t index, gadl_step_info* info) {
  if (context == nullptr || index >= context->executor.model().steps.size()) return failed(GADL_ERROR_ARGUMENT, "there is no such step");
  const gadl::Step& step = context->executor.model().steps[index];
  gadl_step_info full{};
  full.name = step.name.c_str();
  full.result = step.result.c_str();
  full.time_ns = context->executor.step_time_ns(index);
  return give(info, full, kFirstStepInfo);
}

}  // extern "C"
