/* SPDX-License-Identifier: Apache-2.0
 * The smallest driver: a device that loops its input back. A program is "LOOP" and the size in bytes, u32 little endian. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gadl/driver.h"

enum { kBlocks = 16, kAlignment = 64, kMostBytes = 1 << 28 };

struct gadl_device {
  unsigned char *input, *output;
  void* blocks[kBlocks];
  uint32_t size;
  const char* error;
};

static void* aligned(uint64_t size) {
  if (size > kMostBytes) return NULL;
  return aligned_alloc(kAlignment, ((size_t)size / kAlignment + 1) * kAlignment);
}

static gadl_status fail(gadl_status status, const char* text, char* error, size_t error_size) {
  snprintf(error, error_size, "%s", text);
  return status;
}

static int accepts(const void* program, uint64_t size) { return size >= 4 && memcmp(program, "LOOP", 4) == 0; }

static uint32_t size_of(const unsigned char* p) { return p[4] | p[5] << 8 | p[6] << 16 | (uint32_t)p[7] << 24; }

static gadl_status info(const void* program, uint64_t size, gadl_program_info* out, char* error, size_t error_size) {
  if (out->struct_size < sizeof(*out)) return GADL_ERROR_ARGUMENT;
  if (!accepts(program, size) || size != 8 || size_of(program) > kMostBytes) return fail(GADL_ERROR_FORMAT, "not a loop program", error, error_size);
  out->input_count = out->output_count = 1;
  out->memory_bytes = 2 * (uint64_t)size_of(program);
  for (uint32_t i = 0; i < 2 && i < out->size_count; ++i) out->sizes[i] = size_of(program);
  return GADL_OK;
}

static void close_device(gadl_device* device) {
  for (int i = 0; i < kBlocks; ++i) free(device->blocks[i]);
  free(device->input);
  free(device->output);
  free(device);
}

static gadl_status open_device(const void* program, uint64_t size, const gadl_options* options, gadl_device** device, char* error, size_t error_size) {
  (void)options;
  gadl_program_info needs = {.struct_size = sizeof(needs)};
  const gadl_status status = info(program, size, &needs, error, error_size);
  if (status != GADL_OK) return status;
  gadl_device* made = calloc(1, sizeof(*made));
  if (made == NULL) return fail(GADL_ERROR_MEMORY, "out of memory", error, error_size);
  made->size = size_of(program);
  made->error = "";
  made->input = aligned(made->size);
  made->output = aligned(made->size);
  if (made->input == NULL || made->output == NULL) {
    close_device(made);
    return fail(GADL_ERROR_MEMORY, "out of memory", error, error_size);
  }
  *device = made;
  return GADL_OK;
}

/* A handle is the number of a block, from 1. */
static gadl_status alloc_block(gadl_device* device, uint64_t size, uint64_t* handle) {
  for (int i = 0; i < kBlocks; ++i) {
    if (device->blocks[i] != NULL) continue;
    device->blocks[i] = aligned(size);
    *handle = (uint64_t)i + 1;
    if (device->blocks[i] != NULL) return GADL_OK;
    break;
  }
  device->error = "out of memory";
  return GADL_ERROR_MEMORY;
}

static void* map_block(gadl_device* device, uint64_t handle) { return handle >= 1 && handle <= kBlocks ? device->blocks[handle - 1] : NULL; }

static gadl_status free_block(gadl_device* device, uint64_t handle) {
  void* block = map_block(device, handle);
  if (block == NULL) return GADL_ERROR_ARGUMENT;
  free(block);
  device->blocks[handle - 1] = NULL;
  return GADL_OK;
}

static gadl_status copy(gadl_device* device, gadl_direction direction, uint32_t index, void* data, uint64_t size) {
  if (index != 0 || size != device->size) {
    device->error = "another input, output or size than the program's";
    return GADL_ERROR_ARGUMENT;
  }
  if (direction == GADL_TO_DEVICE) memcpy(device->input, data, (size_t)size);
  else memcpy(data, device->output, (size_t)size);
  return GADL_OK;
}

static gadl_status submit(gadl_device* device) {
  memcpy(device->output, device->input, device->size);
  return GADL_OK;
}

static gadl_status wait_device(gadl_device* device) {
  (void)device;
  return GADL_OK;
}

static gadl_status counters(gadl_device* device, gadl_counters* out) {
  (void)device;
  return out->struct_size < sizeof(*out) ? GADL_ERROR_ARGUMENT : GADL_OK;
}

static const char* last_error(gadl_device* device) { return device->error; }

const gadl_driver gadl_loop_driver = {
    sizeof(gadl_driver), "loop", accepts, info, open_device, close_device, alloc_block, free_block, map_block, copy, submit, wait_device, counters, last_error};
