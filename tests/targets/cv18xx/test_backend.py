# SPDX-License-Identifier: Apache-2.0
"""What the backend refuses."""

from __future__ import annotations

import pytest

from gadl.compiler.diag import GadlError
from gadl.targets.cv18xx import backend
from gadl.targets.cv18xx.chip import CHIPS, Chip

from .test_plans import one_convolution, segments


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_more_commands_than_a_section_holds_are_refused(chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids have 16 bits; a limit of two commands stands for that."""
    (segment,) = segments(one_convolution(chip))
    monkeypatch.setattr(backend, "MOST_COMMANDS", 2)
    with pytest.raises(GadlError) as caught:
        backend.CviBackend(chip).compile(segment)
    assert caught.value.diagnostics[0].code == "GADL-P005"
