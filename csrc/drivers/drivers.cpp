// SPDX-License-Identifier: Apache-2.0
#include "drivers.hpp"

#include <cstring>
#include <initializer_list>

extern "C" const gadl_driver* gadl_find_driver(const char* name) {
  for (const gadl_driver* driver : {&gadl_sim_driver()}) {
    if (name != nullptr && std::strcmp(driver->name, name) == 0) return driver;
  }
  return nullptr;
}
