/* SPDX-License-Identifier: Apache-2.0
 * The part of the CV18xx vendor runtime's C interface that we call: names, values and layouts, read from its published header.
 * The library is `libcviruntime.so`; nothing of the vendor's is needed to build. */
#ifndef GADL_CVI_RUNTIME_H
#define GADL_CVI_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CVI_RC_SUCCESS = 0 };

/* Element types, as they stand in a container too. */
enum { CVI_FMT_FP32 = 0, CVI_FMT_INT32, CVI_FMT_UINT32, CVI_FMT_BF16, CVI_FMT_INT16, CVI_FMT_UINT16, CVI_FMT_INT8, CVI_FMT_UINT8, CVI_FMT_COUNT };

typedef int CVI_RC;
typedef void* CVI_MODEL_HANDLE;

typedef struct {
  int32_t dim[6];
  size_t dim_size;
} CVI_SHAPE;

typedef struct {
  char* name;
  CVI_SHAPE shape;
  int fmt;
  size_t count;    /* elements */
  size_t mem_size; /* bytes of sys_mem */
  uint8_t* sys_mem;
  uint64_t paddr;
  int mem_type;
  float qscale; /* outputs: real value = stored value * qscale; inputs: stored value = real value * qscale */
  int zero_point;
  int pixel_format;
  bool aligned;
  float mean[3];
  float scale[3];
  void* owner;
  char reserved[32];
} CVI_TENSOR;

CVI_RC CVI_NN_RegisterModel(const char* file, CVI_MODEL_HANDLE* model);
CVI_RC CVI_NN_RegisterModelFromBuffer(const int8_t* data, uint32_t size, CVI_MODEL_HANDLE* model);
CVI_RC CVI_NN_GetInputOutputTensors(CVI_MODEL_HANDLE model, CVI_TENSOR** inputs, int32_t* input_count, CVI_TENSOR** outputs, int32_t* output_count);
CVI_RC CVI_NN_Forward(CVI_MODEL_HANDLE model, CVI_TENSOR* inputs, int32_t input_count, CVI_TENSOR* outputs, int32_t output_count);
CVI_RC CVI_NN_CleanupModel(CVI_MODEL_HANDLE model);
void* CVI_NN_TensorPtr(CVI_TENSOR* tensor);

#ifdef __cplusplus
}
#endif

#endif
