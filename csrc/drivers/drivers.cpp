// SPDX-License-Identifier: Apache-2.0
#include "drivers.hpp"

#include <cstring>

namespace {

const gadl_driver* const kDrivers[] = {&gadl_sim_driver, &gadl_host_driver};

}  // namespace

extern "C" const gadl_driver* gadl_find_driver(const char* name) {
  for (const gadl_driver* driver : kDrivers)
    if (name != nullptr && std::strcmp(driver->name, name) == 0) return driver;
  return nullptr;
}

extern "C" const gadl_driver* gadl_accepting_driver(const void* program, uint64_t size) {
  for (const gadl_driver* driver : kDrivers)
    if (driver->accepts(program, size)) return driver;
  return nullptr;
}
