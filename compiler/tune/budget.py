# SPDX-License-Identifier: Apache-2.0
"""How long a search may go on, and how it is run."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from gadl.compiler.diag import GadlError

DEFAULT = "60s"


@dataclass(frozen=True)
class Budget:
    """Seconds, or a number of measurements; the other is None."""

    seconds: float | None = None
    count: int | None = None

    @staticmethod
    def parse(text: str | int) -> Budget:
        """`60s`, `1.5m`, `200` (measurements); `GADL-U001` for anything else."""
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(s|m)|([0-9]{1,9})", str(text).strip())
        if found is not None and found[3] is not None and int(found[3]) > 0:
            return Budget(count=int(found[3]))
        if found is not None and found[1] is not None and float(found[1]) > 0:
            return Budget(seconds=float(found[1]) * (60 if found[2] == "m" else 1))
        raise GadlError.of("GADL-U001", detail=f"--budget {text}: write 60s (seconds), 5m (minutes) or 200 (measurements)")

    def share(self, part: float) -> Budget:
        """A part of it, at least one measurement."""
        if self.count is not None:
            return Budget(count=max(1, round(self.count * part)))
        return Budget(seconds=(self.seconds or 0.0) * part)


def jobs_of(wanted: int) -> int:
    """Worker processes: as many as asked for, 0 for one per core that this process may use."""
    if wanted > 0:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
