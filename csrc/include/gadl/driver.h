/* SPDX-License-Identifier: Apache-2.0
 * What a device driver fills in. The simulator is the first one; csrc/tests/conformance.cpp runs against every driver. */
#ifndef GADL_DRIVER_H
#define GADL_DRIVER_H

#include "gadl.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gadl_device gadl_device;

typedef struct gadl_device_info {
  uint32_t struct_size;
  uint32_t input_count;
  uint32_t output_count;
  uint64_t memory_bytes; /* device memory that the open program uses */
} gadl_device_info;

typedef enum gadl_direction { GADL_TO_DEVICE = 0, GADL_FROM_DEVICE = 1 } gadl_direction;

typedef struct gadl_driver {
  uint32_t struct_size;
  const char* name;
  /* Opens the device with one program; the program's bytes stay valid until close. On failure `error` (of `error_size`
   * bytes) receives the text. */
  gadl_status (*open)(const void* program, uint64_t size, const gadl_options* options, gadl_device** device, char* error, size_t error_size);
  void (*close)(gadl_device* device);
  gadl_status (*info)(gadl_device* device, gadl_device_info* info);
  /* Device memory for callers that want to avoid a copy. */
  gadl_status (*alloc)(gadl_device* device, uint64_t size, uint64_t* handle);
  gadl_status (*free)(gadl_device* device, uint64_t handle);
  void* (*map)(gadl_device* device, uint64_t handle);
  /* Copies all bytes of input or output `index`. */
  gadl_status (*copy)(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size);
  gadl_status (*submit)(gadl_device* device);
  gadl_status (*wait)(gadl_device* device);
  gadl_status (*counters)(gadl_device* device, gadl_counters* counters);
  const char* (*last_error)(gadl_device* device);
} gadl_driver;

/* The driver of that name, or null. */
GADL_API const gadl_driver* gadl_find_driver(const char* name);

#ifdef __cplusplus
}
#endif

#endif
