// SPDX-License-Identifier: Apache-2.0
// A header-only C++ cover of gadl.h: RAII and exceptions of the caller's side.
#ifndef GADL_GADL_HPP
#define GADL_GADL_HPP

#include <memory>
#include <stdexcept>
#include <string>

#include "gadl.h"

namespace gadl {

class Error : public std::runtime_error {
 public:
  Error(gadl_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  gadl_status status() const { return status_; }

 private:
  gadl_status status_;
};

inline void check(gadl_status status, const gadl_context* context = nullptr) {
  if (status != GADL_OK) throw Error(status, gadl_last_error(context));
}

class Model {
 public:
  explicit Model(const std::string& path) {
    gadl_model* raw = nullptr;
    check(gadl_model_open_file(path.c_str(), &raw));
    handle_.reset(raw);
  }
  Model(const void* data, uint64_t size) {
    gadl_model* raw = nullptr;
    check(gadl_model_open_memory(data, size, &raw));
    handle_.reset(raw);
  }
  const gadl_model* get() const { return handle_.get(); }
  uint32_t input_count() const { return gadl_model_input_count(get()); }
  uint32_t output_count() const { return gadl_model_output_count(get()); }
  gadl_tensor_info input(uint32_t i) const { return info(gadl_model_input_info, i); }
  gadl_tensor_info output(uint32_t i) const { return info(gadl_model_output_info, i); }
  uint32_t tensor_count() const { return gadl_model_tensor_count(get()); }
  gadl_tensor_info tensor(uint32_t i) const { return info(gadl_model_tensor_info, i); }
  uint64_t context_bytes() const { return gadl_model_context_bytes(get()); }

 private:
  template <class F>
  gadl_tensor_info info(F function, uint32_t i) const {
    gadl_tensor_info found{};
    found.struct_size = sizeof(found);
    check(function(get(), i, &found));
    return found;
  }
  struct Close {
    void operator()(gadl_model* model) const { gadl_model_close(model); }
  };
  std::unique_ptr<gadl_model, Close> handle_;
};

class Context {
 public:
  // `driver` null: the first driver that accepts the model's programs.
  explicit Context(const Model& model, bool skip_checks = false, const char* driver = nullptr) {
    const gadl_options options{sizeof(gadl_options), skip_checks ? 1u : 0u, driver};
    gadl_context* raw = nullptr;
    check(gadl_context_create(model.get(), &options, &raw));
    handle_.reset(raw);
  }
  gadl_context* get() const { return handle_.get(); }
  void* input(uint32_t i) { return gadl_context_input(get(), i); }
  const void* output(uint32_t i) const { return gadl_context_output(get(), i); }
  const void* tensor(uint32_t i) const { return gadl_context_tensor(get(), i); }
  void run() { check(gadl_context_run(get()), get()); }
  gadl_counters counters() const {
    gadl_counters found{};
    found.struct_size = sizeof(found);
    check(gadl_context_counters(get(), &found));
    return found;
  }
  uint32_t step_count() const { return gadl_context_step_count(get()); }
  gadl_step_info step(uint32_t i) const {
    gadl_step_info found{};
    found.struct_size = sizeof(found);
    check(gadl_context_step_info(get(), i, &found));
    return found;
  }

 private:
  struct Destroy {
    void operator()(gadl_context* context) const { gadl_context_destroy(context); }
  };
  std::unique_ptr<gadl_context, Destroy> handle_;
};

}  // namespace gadl

#endif
