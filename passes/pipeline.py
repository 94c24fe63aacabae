# SPDX-License-Identifier: Apache-2.0
"""The float pipeline, top to bottom."""

from __future__ import annotations

from collections.abc import Callable

from gadl.compiler.ir.graph import Graph
from gadl.compiler.ir.passes import Pass, named

from .canonicalize.combine_shape_ops import combine_shape_ops
from .canonicalize.decompose_rows import decompose_rows
from .canonicalize.fold_affine import decompose_batch_norm, fold_affine
from .canonicalize.fold_constants import fold_constants
from .canonicalize.masks_as_sums import masks_as_sums
from .canonicalize.merge_duplicates import merge_duplicates
from .canonicalize.merge_pads import merge_pads
from .canonicalize.normalize_products import normalize_products
from .canonicalize.remove_identities import remove_identities
from .canonicalize.remove_row_reshapes import remove_row_reshapes
from .canonicalize.subsample_first import subsample_first
from .fuse.fuse_drain import fuse_activation, fuse_residual
from .fuse.recognize_composites import recognize_composites
from .fuse.recognize_norms import recognize_norms

#: From a front end's graph to the float stage that quantisation and partition start from.
FLOAT_PIPELINE: tuple[Pass, ...] = (
    named(fold_constants),
    named(decompose_batch_norm),
    named(normalize_products),
    named(remove_identities),
    named(combine_shape_ops),
    named(merge_duplicates),
    named(fold_affine),
    named(recognize_composites),
    named(recognize_norms),
    named(masks_as_sums),
    named(remove_row_reshapes),
    Pass("combine_shape_ops_again", combine_shape_ops),
    named(merge_pads),
    Pass("fold_affine_again", fold_affine),
    named(fuse_activation),
    named(fuse_residual),
    Pass("fuse_activation_again", fuse_activation),
    Pass("remove_identities_again", remove_identities),
    named(subsample_first),
    named(decompose_rows),
)


def float_pipeline(residuals: bool = True, decomposed: frozenset[str] = frozenset()) -> tuple[Pass, ...]:
    """The pipeline for a target; without `residuals`, one whose convolutions take no further operand. `decomposed`: ops over rows
    that the target has only in parts.
    """
    chosen: dict[str, Callable[[Graph], bool]] = {"decompose_rows": lambda graph: decompose_rows(graph, decomposed)}
    if not residuals:
        chosen["fuse_residual"] = lambda graph: False
    return tuple(Pass(p.name, chosen.get(p.name, p.run)) for p in FLOAT_PIPELINE)
