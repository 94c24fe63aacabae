// SPDX-License-Identifier: Apache-2.0
// Sophgo CV18xx through the vendor's runtime, which is loaded when a device is opened. Programs are `.cvimodel` containers.
// On a board `libcviruntime.so` is found by its name; GADL_CVI_LIBRARY names another file, or the folder that holds it and the
// libraries that it needs. The vendor's code trusts its input: callers that do not trust a program run it in a process of its own.
#include <dlfcn.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "blocks.hpp"
#include "cvi_runtime.h"
#include "cvimodel.hpp"

namespace {

constexpr const char* kRuntime = "libcviruntime.so";
constexpr const char* kVariable = "GADL_CVI_LIBRARY";

struct LibraryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The functions of the vendor's runtime. The library stays loaded: it has threads and exit handlers of its own.
class Library {
 public:
  Library() {
    const char* named = std::getenv(kVariable);
    std::string path = named == nullptr || *named == 0 ? kRuntime : named;
    struct stat found {};
    if (stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode)) path += std::string("/") + kRuntime;
    const std::size_t slash = path.rfind('/');
    if (slash != std::string::npos) {
      // The functional model comes without an installation, so its parts are loaded from beside it, in this order.
      for (const char* part : {"libcvikernel.so", "libcvicmodel.so"}) {
        const std::string beside = path.substr(0, slash + 1) + part;
        if (stat(beside.c_str(), &found) == 0) open(beside);
      }
    }
    open(path);
    resolve(register_model, "CVI_NN_RegisterModelFromBuffer");
    resolve(tensors, "CVI_NN_GetInputOutputTensors");
    resolve(forward, "CVI_NN_Forward");
    resolve(cleanup, "CVI_NN_CleanupModel");
    resolve(pointer, "CVI_NN_TensorPtr");
  }

  decltype(&CVI_NN_RegisterModelFromBuffer) register_model = nullptr;
  decltype(&CVI_NN_GetInputOutputTensors) tensors = nullptr;
  decltype(&CVI_NN_Forward) forward = nullptr;
  decltype(&CVI_NN_CleanupModel) cleanup = nullptr;
  decltype(&CVI_NN_TensorPtr) pointer = nullptr;

 private:
  void open(const std::string& path) {
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
    if (handle_ != nullptr) return;
    const char* why = dlerror();
    throw LibraryError(std::string("the vendor's runtime cannot be loaded: ") + (why != nullptr ? why : path.c_str()) + "; on a board put " + kRuntime +
                       " on the library path, elsewhere run `gadl targets setup cv18xx` and use the device cvi-cmodel, or let " + kVariable + " name the library");
  }
  template <class F>
  void resolve(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle_, name));
    if (function == nullptr) throw LibraryError(std::string("the vendor's runtime has no function ") + name);
  }
  void* handle_ = nullptr;
};

struct CviDevice {
  explicit CviDevice(gadl::cvi::Container read) : container(std::move(read)) {}
  ~CviDevice() {
    if (model != nullptr) library.cleanup(model);
  }
  CviDevice(const CviDevice&) = delete;
  CviDevice& operator=(const CviDevice&) = delete;

  gadl::cvi::Container container;
  Library library;
  CVI_MODEL_HANDLE model = nullptr;
  CVI_TENSOR *inputs = nullptr, *outputs = nullptr;
  int32_t input_count = 0, output_count = 0;
  std::vector<CVI_TENSOR*> in, out;  // in the container's order
  gadl::Blocks blocks;
  std::string error;
};

CviDevice* of(gadl_device* device) { return reinterpret_cast<CviDevice*>(device); }

template <class F>
gadl_status guarded(char* error, size_t error_size, F body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    std::snprintf(error, error_size, "out of memory");
    return GADL_ERROR_MEMORY;
  } catch (const LibraryError& e) {
    std::snprintf(error, error_size, "%s", e.what());
    return GADL_ERROR_DEVICE;
  } catch (const std::exception& e) {
    std::snprintf(error, error_size, "%s", e.what());
    return GADL_ERROR_FORMAT;
  }
}

// The runtime's tensors by the container's names; both must agree on type and size.
std::vector<CVI_TENSOR*> match(const std::vector<gadl::cvi::Tensor>& wanted, CVI_TENSOR* given, int32_t count) {
  std::vector<CVI_TENSOR*> found;
  for (const gadl::cvi::Tensor& tensor : wanted) {
    CVI_TENSOR* same = nullptr;
    for (int32_t i = 0; i < count && same == nullptr; ++i)
      if (given[i].name != nullptr && tensor.name == given[i].name) same = &given[i];
    if (same == nullptr || same->fmt != tensor.format || same->count != tensor.count || same->mem_size < tensor.size_bytes) {
      throw LibraryError("the vendor's runtime does not know tensor '" + tensor.name + "' as the container describes it");
    }
    found.push_back(same);
  }
  return found;
}

void start(CviDevice& device, const void* program, uint64_t size) {
  if (size > UINT32_MAX) throw gadl::cvi::ContainerError("the container is larger than 4 GiB");
  // The functional model is of one chip for the life of a process: of the first model, which sets this variable. It crashes on
  // models of another one. Boards do not have it.
  const char* chip = std::getenv("SET_CHIP_NAME");
  if (chip != nullptr && device.container.chip != chip) {
    throw LibraryError("the model is for " + device.container.chip + ", and the functional model of this process is a " + chip);
  }
  const CVI_RC status = device.library.register_model(static_cast<const int8_t*>(program), static_cast<uint32_t>(size), &device.model);
  if (status != CVI_RC_SUCCESS) {
    device.model = nullptr;
    throw LibraryError("the vendor's runtime refuses the model, status " + std::to_string(status));
  }
  if (device.library.tensors(device.model, &device.inputs, &device.input_count, &device.outputs, &device.output_count) != CVI_RC_SUCCESS) {
    throw LibraryError("the vendor's runtime gives no inputs and outputs: out of device memory?");
  }
  device.in = match(device.container.inputs, device.inputs, device.input_count);
  device.out = match(device.container.outputs, device.outputs, device.output_count);
}

int accepts(const void* program, uint64_t size) { return gadl::cvi::has_magic(program, size) ? 1 : 0; }

gadl_status info(const void* program, uint64_t size, gadl_program_info* out, char* error, size_t error_size) {
  if (out->struct_size < sizeof(gadl_program_info)) return GADL_ERROR_ARGUMENT;
  return guarded(error, error_size, [&] {
    const gadl::cvi::Container container = gadl::cvi::read_container(static_cast<const uint8_t*>(program), size);
    out->input_count = static_cast<uint32_t>(container.inputs.size());
    out->output_count = static_cast<uint32_t>(container.outputs.size());
    out->memory_bytes = container.memory_bytes;
    uint32_t n = 0;
    for (const auto* list : {&container.inputs, &container.outputs})
      for (const gadl::cvi::Tensor& tensor : *list)
        if (n < out->size_count) out->sizes[n++] = tensor.size_bytes;
    return GADL_OK;
  });
}

gadl_status open(const void* program, uint64_t size, const gadl_options*, gadl_device** device, char* error, size_t error_size) {
  return guarded(error, error_size, [&] {
    auto made = std::make_unique<CviDevice>(gadl::cvi::read_container(static_cast<const uint8_t*>(program), size));
    start(*made, program, size);
    *device = reinterpret_cast<gadl_device*>(made.release());
    return GADL_OK;
  });
}

void close(gadl_device* device) { delete of(device); }
gadl_status alloc(gadl_device* device, uint64_t size, uint64_t* handle) { return of(device)->blocks.alloc(size, handle, of(device)->error); }
gadl_status release(gadl_device* device, uint64_t handle) { return of(device)->blocks.release(handle); }
void* map(gadl_device* device, uint64_t handle) { return of(device)->blocks.map(handle); }

gadl_status copy(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size) {
  CviDevice& cvi = *of(device);
  const bool write = direction == GADL_TO_DEVICE;
  const auto& known = write ? cvi.container.inputs : cvi.container.outputs;
  if (index >= known.size() || known[index].size_bytes != size) {
    cvi.error = "an input or output has another size than the program says";
    return GADL_ERROR_ARGUMENT;
  }
  void* memory = cvi.library.pointer((write ? cvi.in : cvi.out)[index]);
  if (memory == nullptr) {
    cvi.error = "the vendor's runtime gives no memory for tensor '" + known[index].name + "'";
    return GADL_ERROR_DEVICE;
  }
  if (write) std::memcpy(memory, data, size);
  else std::memcpy(data, memory, size);
  return GADL_OK;
}

gadl_status submit(gadl_device* device) {
  CviDevice& cvi = *of(device);
  const CVI_RC status = cvi.library.forward(cvi.model, cvi.inputs, cvi.input_count, cvi.outputs, cvi.output_count);
  if (status == CVI_RC_SUCCESS) return GADL_OK;
  cvi.error = "the vendor's runtime reports status " + std::to_string(status);
  return GADL_ERROR_DEVICE;
}

gadl_status wait(gadl_device*) { return GADL_OK; }
gadl_status counters(gadl_device*, gadl_counters* out) { return out->struct_size < sizeof(gadl_counters) ? GADL_ERROR_ARGUMENT : GADL_OK; }
const char* last_error(gadl_device* device) { return of(device)->error.c_str(); }

}  // namespace

extern "C" const gadl_driver gadl_cvi_driver;
const gadl_driver gadl_cvi_driver = {sizeof(gadl_driver), "cvi", accepts, info, open, close, alloc, release, map, copy, submit, wait, counters, last_error};
