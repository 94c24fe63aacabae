# SPDX-License-Identifier: Apache-2.0
"""The process of `isolated.Remote`: serves one model until its caller is gone. `python -m gadl.runtime.worker SOCKET`."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
from typing import Any

import gadl.runtime._core as _core
from gadl.runtime.isolated import receive, send


class Server:
    """The calls of `isolated.Remote`, by name: a JSON value and bytes for keyword arguments and bytes."""

    def open(self, data: bytes, path: str, check: bool, driver: str) -> tuple[Any, bytes]:
        """First of all."""
        self._model = _core.Model(path)
        self._context = _core.Context(self._model, skip_checks=not check, driver=driver)
        return None, b""

    def describe(self, what: str) -> tuple[Any, bytes]:
        """Inputs, outputs or tensors."""
        return getattr(self._model, what)(), b""

    def context_bytes(self, data: bytes) -> tuple[Any, bytes]:
        """Memory of the context."""
        return self._model.context_bytes(), b""

    def set_input(self, data: bytes, index: int) -> tuple[Any, bytes]:
        """One input's bytes."""
        self._context.set_input(index, data)
        return None, b""

    def run(self, data: bytes) -> tuple[Any, bytes]:
        """One run."""
        self._context.run()
        return None, b""

    def output(self, data: bytes, index: int) -> tuple[Any, bytes]:
        """One output's bytes."""
        return None, self._context.output(index)

    def tensor(self, data: bytes, index: int) -> tuple[Any, bytes]:
        """One tensor's bytes."""
        return None, self._context.tensor(index)

    def counters(self, data: bytes) -> tuple[Any, bytes]:
        """Counters of the last run."""
        return self._context.counters(), b""

    def steps(self, data: bytes) -> tuple[Any, bytes]:
        """Steps of the last run."""
        return self._context.steps(), b""


def serve(link: socket.socket) -> None:
    """Answer until the caller is gone."""
    server = Server()
    while True:
        head, data = receive(link)
        call = head.pop("call")
        try:
            value, answer = server.describe(call) if call in ("inputs", "outputs", "tensors") else getattr(server, call)(data, **head)
        except _core.RuntimeFailure as error:
            send(link, {"failure": str(error), "status": error.status}, b"")
        else:
            send(link, {"value": value}, answer)


def _end_with(link: socket.socket) -> None:
    """A run that hangs does not outlive the caller."""
    events = select.poll()
    events.register(link, 0)  # only that the other side is gone
    events.poll()
    os._exit(0)


def main() -> None:
    """Serve, and end without the exit handlers of what was loaded."""
    link = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with, args=(link,), daemon=True).start()
    with contextlib.suppress(ConnectionError):
        serve(link)
    os._exit(0)


if __name__ == "__main__":
    main()
