// SPDX-License-Identifier: Apache-2.0
// The C interface: what callers may do wrong, growth of structs, lifetimes, threads, no allocation on the host's part of a
// run. Arguments: an artefact with a device program, an artefact for the host alone; each of one f32 input and output.
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "gadl/gadl.hpp"

namespace {

std::atomic<long> allocations{0};
std::atomic<long> allowed{-1};  // allocations until one fails; negative: none fails
int failures = 0;

void expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("FAILED %s (%s)\n", what, gadl_last_error(nullptr));
  ++failures;
}

}  // namespace

// Not inlined: the compiler would see malloc meet operator delete and warn.
__attribute__((noinline)) void* operator new(std::size_t size) {
  ++allocations;
  void* p = allowed >= 0 && allowed-- == 0 ? nullptr : std::malloc(size > 0 ? size : 1);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace {

void fill(gadl_context* context, uint64_t bytes, int seed) {
  auto* in = static_cast<float*>(gadl_context_input(context, 0));
  for (uint64_t i = 0; i < bytes / 4; ++i) in[i] = static_cast<float>((i * 37 + static_cast<uint64_t>(seed)) % 101) / 50.0f - 1.0f;
}

std::vector<char> result_of(const gadl_context* context, uint64_t bytes) {
  const char* out = static_cast<const char*>(gadl_context_output(context, 0));
  return {out, out + bytes};
}

gadl_tensor_info info_of(const gadl_model* model, bool input) {
  gadl_tensor_info info{};
  info.struct_size = sizeof(info);
  expect((input ? gadl_model_input_info : gadl_model_output_info)(model, 0, &info) == GADL_OK, "tensor info");
  return info;
}

void check_arguments(const char* path) {
  gadl_model* model = nullptr;
  gadl_context* context = nullptr;
  expect(gadl_model_open_file(nullptr, &model) == GADL_ERROR_ARGUMENT && gadl_model_open_file(path, nullptr) == GADL_ERROR_ARGUMENT, "null path or handle");
  expect(gadl_model_open_file("/", &model) == GADL_ERROR_FILE && model == nullptr, "a folder is no file");
  expect(gadl_model_open_memory(nullptr, 8, &model) == GADL_ERROR_ARGUMENT, "null bytes");
  expect(gadl_context_create(nullptr, nullptr, &context) == GADL_ERROR_ARGUMENT && context == nullptr, "null model");
  expect(gadl_model_input_count(nullptr) == 0 && gadl_model_output_count(nullptr) == 0 && gadl_model_tensor_count(nullptr) == 0, "counts of null");
  expect(gadl_model_context_bytes(nullptr) == 0 && gadl_context_step_count(nullptr) == 0, "sizes of null");
  expect(gadl_context_input(nullptr, 0) == nullptr && gadl_context_output(nullptr, 0) == nullptr && gadl_context_tensor(nullptr, 0) == nullptr, "pointers of null");
  expect(gadl_context_run(nullptr) == GADL_ERROR_ARGUMENT && gadl_context_counters(nullptr, nullptr) == GADL_ERROR_ARGUMENT, "run null");
  gadl_model_close(nullptr);
  gadl_context_destroy(nullptr);
  expect(gadl_model_open_file(path, &model) == GADL_OK && gadl_context_create(model, nullptr, &context) == GADL_OK, "open");
  gadl_tensor_info info{};
  expect(gadl_model_input_info(model, 0, &info) == GADL_ERROR_ARGUMENT && gadl_model_input_info(model, 0, nullptr) == GADL_ERROR_ARGUMENT, "struct_size is asked for");
  info.struct_size = sizeof(info);
  expect(gadl_model_input_info(model, 99, &info) == GADL_ERROR_ARGUMENT && gadl_model_tensor_info(model, 9999, &info) == GADL_ERROR_ARGUMENT, "index out of range");
  expect(gadl_context_input(context, 99) == nullptr && gadl_context_output(context, 99) == nullptr && gadl_context_tensor(context, 9999) == nullptr, "address out of range");
  gadl_step_info step{};
  step.struct_size = sizeof(step);
  expect(gadl_context_step_info(context, 9999, &step) == GADL_ERROR_ARGUMENT, "step out of range");
  gadl_context_destroy(context);
  gadl_model_close(model);
}

// Callers with an older header pass shorter structs, callers with a newer one longer.
void check_growth(const char* path) {
  gadl_model* model = nullptr;
  gadl_context* context = nullptr;
  expect(gadl_model_open_file(path, &model) == GADL_OK, "open");
  struct {
    uint32_t struct_size, skip_checks;
    const char* not_given;
  } old_options = {8, 1, "no such driver"};
  expect(gadl_context_create(model, reinterpret_cast<const gadl_options*>(&old_options), &context) == GADL_OK, "options of the first version");
  struct {
    gadl_counters known;
    uint64_t unknown;
  } newer{};
  newer.known.struct_size = sizeof(newer);
  newer.unknown = 42;
  expect(gadl_context_counters(context, &newer.known) == GADL_OK && newer.unknown == 42 && newer.known.struct_size == sizeof(newer), "a longer struct keeps its end");
  gadl_context_destroy(context);
  gadl_options other{sizeof(gadl_options), 0, "no such driver"};
  const bool has_programs = gadl_context_create(model, &other, &context) != GADL_OK;
  expect(has_programs && std::string(gadl_last_error(nullptr)).find("no such driver") != std::string::npos, "an unknown driver is named");
  other.driver = "host";
  expect(gadl_context_create(model, &other, &context) == GADL_ERROR_DEVICE && context == nullptr, "a driver of other programs is refused");
  other.driver = "sim";
  expect(gadl_context_create(model, &other, &context) == GADL_OK, "the right driver by name");
  gadl_context_destroy(context);
  gadl_model_close(model);
}

// A context outlives its model's handle; contexts of one model run in parallel and give the same bytes.
void check_threads(const char* path) {
  gadl_model* model = nullptr;
  expect(gadl_model_open_file(path, &model) == GADL_OK, "open");
  const uint64_t in = info_of(model, true).size_bytes, out = info_of(model, false).size_bytes;
  constexpr int kThreads = 3;
  gadl_context* contexts[kThreads] = {};
  for (gadl_context*& context : contexts) expect(gadl_context_create(model, nullptr, &context) == GADL_OK, "create");
  gadl_model_close(model);
  std::vector<char> results[kThreads];
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int run = 0; run < 4; ++run) {
        fill(contexts[t], in, run == 3 ? 5 : t + run);
        if (gadl_context_run(contexts[t]) != GADL_OK) return;
      }
      results[t] = result_of(contexts[t], out);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < kThreads; ++t) {
    expect(results[t].size() == out && results[t] == results[0], "threads give the same bytes");
    gadl_context_destroy(contexts[t]);
  }
}

void check_no_allocation(const char* path) {
  const gadl::Model model(path);
  gadl::Context context(model);
  fill(context.get(), model.input(0).size_bytes, 1);
  context.run();
  const long before = allocations;
  for (int run = 0; run < 3; ++run) expect(gadl_context_run(context.get()) == GADL_OK, "run");
  expect(allocations == before, "a run on the host allocates nothing");
  for (uint32_t i = 0; i < context.step_count(); ++i) expect(context.step(i).time_ns > 0 && context.step(i).name[0] != 0, "steps are timed");
}

// Bytes in memory give what the file gives; alignment is asked for; the version is checked first.
void check_memory(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<uint64_t> words(text.size() / 8 + 2);
  auto* bytes = reinterpret_cast<char*>(words.data());
  std::memcpy(bytes, text.data(), text.size());
  const gadl::Model from_file(path);
  const gadl::Model from_memory(bytes, text.size());
  gadl::Context first(from_file), second(from_memory);
  for (gadl::Context* context : {&first, &second}) {
    fill(context->get(), from_file.input(0).size_bytes, 9);
    context->run();
  }
  const uint64_t size = from_file.output(0).size_bytes;
  expect(result_of(first.get(), size) == result_of(second.get(), size), "file and memory agree");
  std::memmove(bytes + 1, bytes, text.size());
  gadl_model* model = nullptr;
  expect(gadl_model_open_memory(bytes + 1, text.size(), &model) == GADL_ERROR_FORMAT && model == nullptr, "bytes that are not aligned are refused");
  std::memmove(bytes, bytes + 1, text.size());
  bytes[4] = 7;
  expect(gadl_model_open_memory(bytes, text.size(), &model) == GADL_ERROR_VERSION, "a newer file is refused");
  const std::string message = gadl_last_error(nullptr);
  expect(message.find("7.0") != std::string::npos && message.find("1.0") != std::string::npos && message.find("update") != std::string::npos, "with both versions and the fix");
}

// Whichever allocation fails, the call says so and leaves nothing behind (the address sanitizer looks for leaks).
void check_failing_allocator(const char* path) {
  bool done = false;
  for (long n = 0; !done && n < 100000; ++n) {
    gadl_model* model = nullptr;
    gadl_context* context = nullptr;
    allowed = n;
    gadl_status status = gadl_model_open_file(path, &model);
    if (status == GADL_OK) status = gadl_context_create(model, nullptr, &context);
    done = status == GADL_OK && allowed > 0;
    allowed = -1;
    expect(status == GADL_OK || status == GADL_ERROR_MEMORY, "a failed allocation is reported as such");
    expect(status == GADL_OK || context == nullptr, "no handle on failure");
    if (failures > 0) return;
    gadl_context_destroy(context);
    gadl_model_close(model);
  }
  expect(done, "the last round has all it needs");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    for (int i = 1; i < 3; ++i) {
      check_arguments(argv[i]);
      check_threads(argv[i]);
      check_memory(argv[i]);
      check_failing_allocator(argv[i]);
    }
    check_growth(argv[1]);
    check_no_allocation(argv[2]);
  } catch (const gadl::Error& e) {
    expect(false, e.what());
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
