# SPDX-License-Identifier: Apache-2.0
"""`docs/ops.md` from the declarations: `python -m gadl.compiler.ir.docs` writes it."""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from gadl.compiler.diag.files import write_atomically

from .opdef import REQUIRED, Attr, AttrKind, OpDef, Trait, all_ops

#: The generated page.
PATH = Path(__file__).resolve().parents[2] / "docs" / "ops.md"
_CHAPTERS = {
    "nn": "Convolutions and products",
    "pooling": "Pooling",
    "elementwise": "Elementwise",
    "norm": "Normalisation",
    "attention": "Attention",
    "reduce": "Reductions",
    "shape": "Movement and resampling",
    "quant": "Quantisation",
}
_HEADER = """\
# The op set

Written by `python -m gadl.compiler.ir.docs` from the declarations in `compiler/ir/ops/`; do not edit. What the integer
forms compute stands in [numerics.md](numerics.md), the text form of graphs in [ir.md](ir.md).

Shapes are logical (`[N, C, *S]`) whatever the memory layout. `?` marks operands and attributes that may be absent, `...` an
operand that repeats. An attribute `requant` selects the integer form. `clamp` limits the result.
"""


def text() -> str:
    """The page."""
    chapters: dict[str, list[type[OpDef]]] = defaultdict(list)
    for definition in all_ops():
        chapters[definition.__module__.rsplit(".", 1)[-1]].append(definition)
    parts = [_HEADER]
    for module, title in _CHAPTERS.items():
        parts.append(f"\n## {title}\n")
        parts.extend(f"\n{_entry(definition)}" for definition in chapters.pop(module))
    if chapters:
        raise ValueError(f"no chapter for {', '.join(chapters)}")
    return "".join(parts)


def _entry(definition: type[OpDef]) -> str:
    operands = ", ".join(o.name + ("?" if o.optional else "") + ("..." if o.variadic else "") for o in definition.operands)
    lines = [f"### `{definition.name}({operands})`\n", f"{_escaped(inspect.getdoc(definition) or '')}\n"]
    lines += [f"- {_attr(attr)}" for attr in definition.attrs]
    lines += [f"- {fact}" for fact in _facts(definition)]
    return "\n".join(lines).rstrip() + "\n"


def _escaped(doc: str) -> str:
    """Stars outside code must not become emphasis."""
    return "`".join(part if index % 2 else part.replace("*", "\\*") for index, part in enumerate(doc.split("`")))


def _attr(attr: Attr) -> str:
    kind = f"{attr.kind.value}[{attr.length}]" if attr.length is not None else attr.kind.value
    optional = "?" if attr.default is None else ""
    default = "" if attr.default is None or attr.default is REQUIRED else f" = `{_spelled(attr)}`"
    choices = f": {', '.join(f'`{c}`' for c in attr.choices)}" if attr.choices else ""
    return f"`{attr.name}`{optional}: {kind}{default}{choices}"


def _spelled(attr: Attr) -> str:
    return str(attr.default).lower() if attr.kind is AttrKind.BOOL else str(attr.default)


def _facts(definition: type[OpDef]) -> Iterator[str]:
    if definition.onnx:
        yield f"ONNX: {', '.join(definition.onnx)}"
    traits = [t.name.lower().replace("_", " ") for t in Trait if t in definition.traits and t is not Trait.NONE and t.name]
    if traits:
        yield f"traits: {', '.join(traits)}"


if __name__ == "__main__":
    write_atomically(PATH, text().encode())
    sys.stdout.write(f"{PATH}\n")
