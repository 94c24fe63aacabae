/* SPDX-License-Identifier: Apache-2.0
 * usage: classify MODEL.gadl INPUT.bin: runs the model on raw bytes and prints the largest of its first output. */
#include <gadl/gadl.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.gadl INPUT.bin\n", argv[0]);
    return 2;
  }
  gadl_model* model = NULL;
  gadl_context* context = NULL;
  if (gadl_model_open_file(argv[1], &model) != GADL_OK || gadl_context_create(model, NULL, &context) != GADL_OK) {
    fprintf(stderr, "%s\n", gadl_last_error(NULL));
    gadl_model_close(model);
    return 1;
  }
  gadl_tensor_info in = {.struct_size = sizeof(in)}, out = {.struct_size = sizeof(out)};
  gadl_model_input_info(model, 0, &in);
  gadl_model_output_info(model, 0, &out);
  FILE* file = fopen(argv[2], "rb");
  int status = 1;
  if (file == NULL || fread(gadl_context_input(context, 0), 1, in.size_bytes, file) != in.size_bytes) {
    fprintf(stderr, "%s does not hold %llu bytes\n", argv[2], (unsigned long long)in.size_bytes);
  } else if (gadl_context_run(context) != GADL_OK) {
    fprintf(stderr, "%s\n", gadl_last_error(context));
  } else if (out.dtype == GADL_DTYPE_F32) {
    const float* values = gadl_context_output(context, 0);
    uint64_t best = 0;
    for (uint64_t i = 1; i < out.size_bytes / sizeof(float); ++i) {
      if (values[i] > values[best]) best = i;
    }
    printf("%s[%llu] = %g\n", out.name, (unsigned long long)best, values[best]);
    status = 0;
  }
  if (file != NULL) fclose(file);
  gadl_context_destroy(context);
  gadl_model_close(model);
  return status;
}
