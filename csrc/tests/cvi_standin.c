/* SPDX-License-Identifier: Apache-2.0
 * Stands in for the vendor's runtime of the CV18xx where it is absent: one int8 input `x` and output `y` of 256 elements, which a
 * run copies. CVI_STANDIN makes it misbehave: refuse, fail, abort, hang, exit, wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../drivers/cvi/cvi_runtime.h"

#define EXPORT __attribute__((visibility("default")))
enum { kBytes = 256 };

typedef struct {
  CVI_TENSOR in, out;
  uint8_t memory[2][kBytes];
} Model;

static int asked(const char* what) {
  const char* how = getenv("CVI_STANDIN");
  return how != NULL && strcmp(how, what) == 0;
}

static void describe(CVI_TENSOR* tensor, const char* name, uint8_t* memory) {
  tensor->name = (char*)(uintptr_t)name;
  tensor->shape = (CVI_SHAPE){.dim = {1, 1, 16, 16}, .dim_size = 4};
  tensor->fmt = CVI_FMT_INT8;
  tensor->count = tensor->mem_size = kBytes;
  tensor->sys_mem = memory;
  tensor->qscale = 0.5f;
}

EXPORT CVI_RC CVI_NN_RegisterModelFromBuffer(const int8_t* data, uint32_t size, CVI_MODEL_HANDLE* model) {
  if (asked("refuse") || size < 48 || memcmp(data, "CviModel", 8) != 0) return 2;
  Model* made = calloc(1, sizeof(*made));
  if (made == NULL) return 6;
  describe(&made->in, "x", made->memory[0]);
  describe(&made->out, "y", made->memory[1]);
  *model = made;
  return CVI_RC_SUCCESS;
}

EXPORT CVI_RC CVI_NN_RegisterModel(const char* file, CVI_MODEL_HANDLE* model) {
  int8_t head[48] = {0};
  FILE* open = fopen(file, "rb");
  if (open == NULL) return 2;
  const size_t got = fread(head, 1, sizeof(head), open);
  fclose(open);
  return CVI_NN_RegisterModelFromBuffer(head, (uint32_t)got, model);
}

EXPORT CVI_RC CVI_NN_GetInputOutputTensors(CVI_MODEL_HANDLE model, CVI_TENSOR** inputs, int32_t* input_count, CVI_TENSOR** outputs, int32_t* output_count) {
  Model* known = model;
  *inputs = &known->in;
  *outputs = &known->out;
  *input_count = *output_count = 1;
  return CVI_RC_SUCCESS;
}

EXPORT CVI_RC CVI_NN_Forward(CVI_MODEL_HANDLE model, CVI_TENSOR* inputs, int32_t input_count, CVI_TENSOR* outputs, int32_t output_count) {
  (void)model, (void)input_count, (void)output_count;
  if (asked("fail")) return 7;
  if (asked("abort")) {
    fprintf(stderr, "assertion failed: the stand-in was asked to\n");
    abort();
  }
  while (asked("hang")) sleep(1);
  if (asked("exit")) _exit(3);
  memcpy(outputs[0].sys_mem, inputs[0].sys_mem, kBytes);
  if (asked("wrong")) outputs[0].sys_mem[kBytes - 1] ^= 1;
  return CVI_RC_SUCCESS;
}

EXPORT void* CVI_NN_TensorPtr(CVI_TENSOR* tensor) { return tensor->sys_mem; }

EXPORT CVI_RC CVI_NN_CleanupModel(CVI_MODEL_HANDLE model) {
  free(model);
  return CVI_RC_SUCCESS;
}
