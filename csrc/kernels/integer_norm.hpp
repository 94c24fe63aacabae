// SPDX-License-Identifier: Apache-2.0
// Softmax, normalisation and attention of i8, as docs/numerics.md section 4 defines them.
#pragma once
#include "kernel.hpp"

namespace gadl {

Prepared integer_softmax(const Call& call);
// Over the last axis; `centre` subtracts the mean (layer_norm).
Prepared integer_normalise(const Call& call, bool centre);
Prepared integer_attention(const Call& call);
// The leading 15 bits of 1 / v for v >= 1: 2^(45 - z) / v, z leading zeros of v but one.
int32_t normaliser(int32_t v);

}  // namespace gadl
