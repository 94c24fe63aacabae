// SPDX-License-Identifier: Apache-2.0
// Softmax and normalisation of i8, as docs/numerics.md section 4 defines them.
#pragma once
#include "kernel.hpp"

namespace gadl {

Prepared integer_softmax(const Call& call);
// Over the last axis; `centre` subtracts the mean (layer_norm).
Prepared integer_normalise(const Call& call, bool centre);

}  // namespace gadl
