/* SPDX-License-Identifier: Apache-2.0
 * The runtime's C interface.
 * - A model is immutable and may be shared by threads. A context is used by one thread at a time; many run in parallel.
 * - A context keeps what it needs of its model: close and destroy in any order.
 * - The file is checked when it is opened. Memory is known before a context is made and taken when it is; nothing is
 *   allocated while it runs, except by the simulator itself.
 * - `struct_size` comes first in every struct that may grow: set it to sizeof before the call. A caller that was built
 *   against an older header passes a smaller size and gets the fields that it knows.
 * - Null handles and indices out of range are errors, never crashes. */
#ifndef GADL_GADL_H
#define GADL_GADL_H

#include <stddef.h>
#include <stdint.h>

#include "artifact_format.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define GADL_API __declspec(dllexport)
#else
#define GADL_API __attribute__((visibility("default")))
#endif

typedef enum gadl_status {
  GADL_OK = 0,
  GADL_ERROR_ARGUMENT = 1,  /* a null pointer, an index out of range, a struct of unknown size */
  GADL_ERROR_FILE = 2,      /* the file cannot be opened */
  GADL_ERROR_FORMAT = 3,    /* not a sound artefact */
  GADL_ERROR_VERSION = 4,   /* made by a newer compiler */
  GADL_ERROR_MEMORY = 5,    /* out of memory */
  GADL_ERROR_DEVICE = 6,    /* the device, or its simulator, reports an error */
} gadl_status;

typedef struct gadl_model gadl_model;
typedef struct gadl_context gadl_context;

/* Strings and arrays live as long as the model, or any context of it. */
typedef struct gadl_tensor_info {
  uint32_t struct_size;
  const char* name;
  gadl_dtype dtype;
  gadl_layout layout; /* of the bytes; `dims` are in logical order: N, C, spatial */
  uint32_t rank;
  const int64_t* dims;
  uint64_t size_bytes;
  uint32_t scale_count; /* 0: not quantised; 1: per tensor */
  const double* scales; /* real value = scale * (stored value - zero point) */
  int32_t zero_point;
} gadl_tensor_info;

typedef struct gadl_counters {
  uint32_t struct_size;
  double cycles;             /* device cycles of the last run, all segments */
  uint64_t dram_read_bytes;  /* of the last run */
  uint64_t dram_write_bytes;
  uint64_t macs;
} gadl_counters;

typedef struct gadl_step_info {
  uint32_t struct_size;
  const char* name;    /* op, or "segment" */
  const char* result;  /* name of the first result */
  uint64_t time_ns;    /* of the last run */
} gadl_step_info;

typedef struct gadl_options {
  uint32_t struct_size;
  uint32_t skip_checks; /* not 0: the simulator leaves out race detection */
  const char* driver;   /* the driver that runs device programs; null: the first one that accepts them */
} gadl_options;

GADL_API const char* gadl_version(void);
GADL_API const char* gadl_status_text(gadl_status status);
/* The text of the last failed run of this context, or (context null) of this thread's last other failed call. */
GADL_API const char* gadl_last_error(const gadl_context* context);

/* Opens a file, which is mapped and must not be cut short while it is open, or bytes, aligned to 8, that must stay valid
 * until the model is closed and its contexts are destroyed. */
GADL_API gadl_status gadl_model_open_file(const char* path, gadl_model** model);
GADL_API gadl_status gadl_model_open_memory(const void* data, uint64_t size, gadl_model** model);
GADL_API void gadl_model_close(gadl_model* model);
GADL_API uint32_t gadl_model_input_count(const gadl_model* model);
GADL_API uint32_t gadl_model_output_count(const gadl_model* model);
GADL_API gadl_status gadl_model_input_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info);
GADL_API gadl_status gadl_model_output_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info);
/* All tensors of the schedule, in the order of the file. */
GADL_API uint32_t gadl_model_tensor_count(const gadl_model* model);
GADL_API gadl_status gadl_model_tensor_info(const gadl_model* model, uint32_t index, gadl_tensor_info* info);
/* Bytes that a context takes: tensors, scratch and device memory. The simulator adds its own state. */
GADL_API uint64_t gadl_model_context_bytes(const gadl_model* model);

GADL_API gadl_status gadl_context_create(const gadl_model* model, const gadl_options* options, gadl_context** context);
GADL_API void gadl_context_destroy(gadl_context* context);
/* The bytes of an input (to be written before a run), of an output or of any tensor (to be read after it). */
GADL_API void* gadl_context_input(gadl_context* context, uint32_t index);
GADL_API const void* gadl_context_output(const gadl_context* context, uint32_t index);
GADL_API const void* gadl_context_tensor(const gadl_context* context, uint32_t index);
GADL_API gadl_status gadl_context_run(gadl_context* context);
GADL_API gadl_status gadl_context_counters(const gadl_context* context, gadl_counters* counters);
GADL_API uint32_t gadl_context_step_count(const gadl_context* context);
GADL_API gadl_status gadl_context_step_info(const gadl_context* context, uint32_t index, gadl_step_info* info);

#ifdef __cplusplus
}
#endif

#endif
