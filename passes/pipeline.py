# SPDX-License-Identifier: Apache-2.0
"""The float pipeline, top to bottom."""

from __future__ import annotations

from gadl.compiler.ir.passes import Pass, named

from .canonicalize.fold_affine import decompose_batch_norm, fold_affine
from .canonicalize.fold_constants import fold_constants
from .canonicalize.normalize_products import normalize_products
from .canonicalize.remove_identities import remove_identities
from .fuse.fuse_drain import fuse_activation, fuse_residual
from .fuse.recognize_composites import recognize_composites

#: From a front end's graph to the float stage that quantisation and partition start from.
FLOAT_PIPELINE: tuple[Pass, ...] = (
    named(fold_constants),
    named(decompose_batch_norm),
    named(normalize_products),
    named(remove_identities),
    named(fold_affine),
    named(recognize_composites),
    Pass("fold_affine_again", fold_affine),
    named(fuse_activation),
    named(fuse_residual),
    Pass("fuse_activation_again", fuse_activation),
    Pass("remove_identities_again", remove_identities),
)
