/* SPDX-License-Identifier: Apache-2.0
 * Runs a .cvimodel on a CV18xx board with the vendor's runtime and nothing else: docs/board-cv18xx.md.
 * run_cvimodel [-n RUNS] [-o FOLDER] MODEL [INPUT.bin ...]
 * Inputs are raw bytes in the order of the model; without them every input is filled with the same noise. Outputs go to
 * FOLDER/<index>.bin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef GADL_VENDOR_HEADER
#include <cviruntime.h>
#else
#include "cvi_runtime.h"
#endif

static const char* const kTypes[] = {"fp32", "int32", "uint32", "bf16", "int16", "uint16", "int8", "uint8"};
static const size_t kWidths[] = {4, 4, 4, 2, 2, 2, 1, 1};
enum { kTypeCount = 8, kTop = 5 };

static void fail(const char* what, const char* which) {
  fprintf(stderr, "%s: %s\n", which, what);
  exit(1);
}

static size_t size_of(const CVI_TENSOR* tensor) {
  if ((int)tensor->fmt < 0 || (int)tensor->fmt >= kTypeCount) fail("unknown type", tensor->name);
  return tensor->count * kWidths[tensor->fmt];
}

static void describe(const char* kind, int32_t index, const CVI_TENSOR* tensor) {
  printf("%s %d %s: %s[", kind, (int)index, tensor->name, (int)tensor->fmt < kTypeCount ? kTypes[tensor->fmt] : "?");
  for (size_t i = 0; i < tensor->shape.dim_size; ++i) printf("%s%d", i > 0 ? "," : "", (int)tensor->shape.dim[i]);
  printf("] %zu bytes, qscale %g\n", size_of(tensor), tensor->qscale);
}

static double value_at(const CVI_TENSOR* tensor, const void* data, size_t index) {
  switch ((int)tensor->fmt) {
    case 0: return ((const float*)data)[index];
    case 1: return ((const int32_t*)data)[index];
    case 2: return ((const uint32_t*)data)[index];
    case 3: {
      const uint32_t bits = (uint32_t)((const uint16_t*)data)[index] << 16;
      float value;
      memcpy(&value, &bits, sizeof(value));
      return value;
    }
    case 4: return ((const int16_t*)data)[index] * (double)tensor->qscale;
    case 5: return ((const uint16_t*)data)[index] * (double)tensor->qscale;
    case 6: return ((const int8_t*)data)[index] * (double)tensor->qscale;
    default: return ((const uint8_t*)data)[index] * (double)tensor->qscale;
  }
}

static void read_input(CVI_TENSOR* tensor, const char* path) {
  const size_t size = size_of(tensor);
  unsigned char* memory = CVI_NN_TensorPtr(tensor);
  if (memory == NULL) fail("no memory", tensor->name);
  if (path == NULL) {
    uint32_t state = 1;
    for (size_t i = 0; i < size; ++i) memory[i] = (unsigned char)((state = state * 1664525u + 1013904223u) >> 24);
    return;
  }
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail("cannot be opened", path);
  char behind;
  if (fread(memory, 1, size, file) != size || fread(&behind, 1, 1, file) != 0) fail("has another size than the input", path);
  fclose(file);
}

/* Extremes and the largest values: enough to see that two runs agree, and what a classifier says. */
static void show_output(const CVI_TENSOR* tensor, const void* data) {
  double low = 0, high = 0;
  size_t top[kTop];
  int found = 0;
  for (size_t i = 0; i < tensor->count; ++i) {
    const double value = value_at(tensor, data, i);
    if (i == 0 || value < low) low = value;
    if (i == 0 || value > high) high = value;
    int at = found < kTop ? found++ : kTop;
    for (; at > 0 && value > value_at(tensor, data, top[at - 1]); --at)
      if (at < kTop) top[at] = top[at - 1];
    if (at < kTop) top[at] = i;
  }
  printf("%s: min %g max %g, top", tensor->name, low, high);
  for (int i = 0; i < found; ++i) printf(" [%zu]=%g", top[i], value_at(tensor, data, top[i]));
  printf("\n");
}

static void write_output(const CVI_TENSOR* tensor, const void* data, const char* folder, int32_t index) {
  char path[1024];
  if (snprintf(path, sizeof(path), "%s/%d.bin", folder, (int)index) >= (int)sizeof(path)) fail("the name is too long", folder);
  FILE* file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, size_of(tensor), file) != size_of(tensor) || fclose(file) != 0) fail("cannot be written", path);
}

/* The vendor's runtime ends the process on other files. */
static void check_magic(const char* path) {
  char magic[8] = "";
  FILE* file = fopen(path, "rb");
  if (file == NULL) fail("cannot be opened", path);
  if (fread(magic, 1, sizeof(magic), file) != sizeof(magic) || memcmp(magic, "CviModel", sizeof(magic)) != 0) fail("is not a .cvimodel", path);
  fclose(file);
}

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  int runs = 1;
  const char* folder = NULL;
  for (int option; (option = getopt(argc, argv, "n:o:")) != -1;) {
    if (option == 'n') runs = atoi(optarg);
    else if (option == 'o') folder = optarg;
    else return 2;
  }
  if (optind >= argc || runs < 1 || runs > 1000000) {
    fprintf(stderr, "run_cvimodel [-n RUNS] [-o FOLDER] MODEL [INPUT.bin ...]\n");
    return 2;
  }
  const char* path = argv[optind++];
  check_magic(path);
  CVI_MODEL_HANDLE model = NULL;
  CVI_TENSOR *inputs = NULL, *outputs = NULL;
  int32_t input_count = 0, output_count = 0;
  if (CVI_NN_RegisterModel(path, &model) != 0) fail("the runtime refuses the model", path);
  if (CVI_NN_GetInputOutputTensors(model, &inputs, &input_count, &outputs, &output_count) != 0) fail("no inputs and outputs", path);
  for (int32_t i = 0; i < input_count; ++i) describe("input", i, &inputs[i]);
  for (int32_t i = 0; i < output_count; ++i) describe("output", i, &outputs[i]);
  if (optind < argc && argc - optind != input_count) fail("needs one file for each input", path);
  for (int32_t i = 0; i < input_count; ++i) read_input(&inputs[i], optind < argc ? argv[optind + i] : NULL);

  double* times = malloc((size_t)runs * sizeof(*times));
  if (times == NULL) fail("out of memory", path);
  for (int run = 0; run < runs; ++run) {
    const double start = now_ms();
    if (CVI_NN_Forward(model, inputs, input_count, outputs, output_count) != 0) fail("the run failed", path);
    times[run] = now_ms() - start;
  }
  for (int32_t i = 0; i < output_count; ++i) {
    const void* data = CVI_NN_TensorPtr(&outputs[i]);
    if (data == NULL) fail("no memory", outputs[i].name);
    show_output(&outputs[i], data);
    if (folder != NULL) write_output(&outputs[i], data, folder, i);
  }
  qsort(times, (size_t)runs, sizeof(*times), ascending);
  printf("%d runs: min %.3f ms, median %.3f ms, p90 %.3f ms\n", runs, times[0], times[runs / 2], times[(size_t)runs * 9 / 10]);
  free(times);
  CVI_NN_CleanupModel(model);
  return 0;
}
