/* SPDX-License-Identifier: Apache-2.0
 * What a device driver fills in. The simulator is the first one; csrc/tests/conformance.cpp runs against every driver.
 * Drivers keep no global state: several devices may be open, each used by one thread at a time. No exception leaves a
 * driver. Functions that take `error` (of `error_size` bytes) write a text there when they fail. */
#ifndef GADL_DRIVER_H
#define GADL_DRIVER_H

#include "gadl.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gadl_device gadl_device;

typedef struct gadl_program_info {
  uint32_t struct_size;
  uint32_t input_count;
  uint32_t output_count;
  uint32_t size_count;   /* set by the caller: entries of `sizes` */
  uint64_t* sizes;       /* receives the sizes of inputs, then outputs, in bytes; at most `size_count` of them */
  uint64_t memory_bytes; /* device memory that an open program takes */
} gadl_program_info;

typedef enum gadl_direction { GADL_TO_DEVICE = 0, GADL_FROM_DEVICE = 1 } gadl_direction;

typedef struct gadl_driver {
  uint32_t struct_size;
  const char* name;
  /* 1 when the bytes look like this driver's programs, else 0. Cheap: looks at the magic only. */
  int (*accepts)(const void* program, uint64_t size);
  /* Checks a program, which may hold any bytes, and says what it needs. */
  gadl_status (*info)(const void* program, uint64_t size, gadl_program_info* info, char* error, size_t error_size);
  /* Opens the device with one program, whose bytes stay valid until close. `options` may be null. */
  gadl_status (*open)(const void* program, uint64_t size, const gadl_options* options, gadl_device** device, char* error, size_t error_size);
  void (*close)(gadl_device* device);
  /* Device memory for callers that want to avoid a copy. */
  gadl_status (*alloc)(gadl_device* device, uint64_t size, uint64_t* handle);
  gadl_status (*free)(gadl_device* device, uint64_t handle);
  void* (*map)(gadl_device* device, uint64_t handle);
  /* Copies all bytes of input or output `index`; `size` must be exactly theirs. */
  gadl_status (*copy)(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size);
  gadl_status (*submit)(gadl_device* device);
  gadl_status (*wait)(gadl_device* device);
  /* Of the last run; a driver that counts nothing leaves zeros. */
  gadl_status (*counters)(gadl_device* device, gadl_counters* counters);
  const char* (*last_error)(gadl_device* device);
} gadl_driver;

/* The driver of that name, or null. */
GADL_API const gadl_driver* gadl_find_driver(const char* name);
/* The first driver that accepts the program, or null. */
GADL_API const gadl_driver* gadl_accepting_driver(const void* program, uint64_t size);

#ifdef __cplusplus
}
#endif

#endif
