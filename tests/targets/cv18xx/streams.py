# SPDX-License-Identifier: Apache-2.0
"""Commands for tests: any, and those of operations that exist."""

from __future__ import annotations

from hypothesis import strategies as st

from gadl.targets.cv18xx.descriptor import Command
from gadl.targets.cv18xx.isa import LAYOUTS, Elementwise, Engine, Field, Pool, Task

engines = st.sampled_from(Engine)


def values(field: Field) -> st.SearchStrategy[int]:
    """Numbers that fit a field."""
    return st.integers(-(1 << (field.width - 1)) if field.signed else 0, field.mask)


@st.composite
def any_fields(draw: st.DrawFn, engine: Engine) -> dict[str, int]:
    """Some fields of an engine with values that fit."""
    names = draw(st.lists(st.sampled_from(LAYOUTS[engine].fields), unique_by=lambda f: f.name, max_size=12))
    return {field.name: draw(values(field)) for field in names}


@st.composite
def any_commands(draw: st.DrawFn) -> Command:
    """A command of some fields."""
    engine = draw(engines)
    return Command.of(engine, draw(any_fields(engine)))


@st.composite
def operations(draw: st.DrawFn) -> Command:
    """A TIU command of an operation that exists."""
    task = draw(st.sampled_from(Task))
    unit = draw(st.sampled_from({Task.POOL: tuple(Pool), Task.ELEMENTWISE: tuple(Elementwise)}.get(task, (0,))))
    return Command.of(Engine.TIU, draw(any_fields(Engine.TIU)) | {"tsk_typ": task, "tsk_eu_typ": int(unit)})
