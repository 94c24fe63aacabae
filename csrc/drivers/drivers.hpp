// SPDX-License-Identifier: Apache-2.0
// The drivers that are linked into the runtime.
#pragma once
#include "gadl/driver.h"

extern const gadl_driver gadl_sim_driver;
extern const gadl_driver gadl_host_driver;
