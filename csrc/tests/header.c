/* SPDX-License-Identifier: Apache-2.0
 * The C headers compile as C11, and the shared library exports what they declare. */
#include <string.h>

#include "gadl/driver.h"
#include "gadl/gadl.h"

int main(void) {
  gadl_model* model = NULL;
  const gadl_driver* driver = gadl_find_driver("sim");
  if (gadl_model_open_file("there is no such file", &model) != GADL_ERROR_FILE || model != NULL) return 1;
  if (strstr(gadl_last_error(NULL), "there is no such file") == NULL) return 2;
  if (driver == NULL || driver->struct_size != sizeof(gadl_driver)) return 3;
  return strlen(gadl_version()) == 0 || strcmp(gadl_status_text(GADL_OK), "ok") != 0;
}
