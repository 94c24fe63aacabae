// SPDX-License-Identifier: Apache-2.0
// H3K is writing this file.
#include "kernel.hpp"

namespace gadl {

const KernelTable& reduction_kernels() {
  static const KernelTable table = {};
  return table;
}

}  // namespace gadl
