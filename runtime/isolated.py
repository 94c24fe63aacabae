# SPDX-License-Identifier: Apache-2.0
"""A model and its context in a process of their own, so that a vendor's library may crash or hang without taking the caller along.

One socket carries both ways messages of a JSON head and bytes; what the process prints is kept for the error message.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO, Any

import gadl.runtime._core as _core
from gadl.compiler.artifact.reader import ArtifactFile
from gadl.compiler.diag import GadlError

from .devices import Device

HEAD = struct.Struct("<IQ")
#: Seconds that one call may take.
TIMEOUT_S = 600.0
#: Bytes of the process's output that an error shows.
SHOWN_BYTES = 2000


class Remote:
    """What `_core.Model` and `_core.Context` are, in another process. One thread at a time.

    Calls raise `GADL-R010` when the process ends, `GADL-R011` when it takes longer than `timeout_s`, after which it is ended.
    """

    def __init__(self, path: Path | str, device: Device, *, check: bool = True, timeout_s: float = TIMEOUT_S) -> None:
        self._device, self._timeout_s = device, timeout_s
        programs = ArtifactFile.open(path).programs
        environment = dict(os.environ) | (device.environment(programs[0]) if programs else {})
        here, there = socket.socketpair()
        self._socket = here
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (kept as long as the process)
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gadl.runtime.worker", str(there.fileno())],
                env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, pass_fds=(there.fileno(),),
            )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process, here, self._output)
        self._call("open", path=str(path), check=check, driver=device.driver)

    def inputs(self) -> list[dict[str, Any]]:
        """As of `_core.Model`."""
        return self._describe("inputs")

    def outputs(self) -> list[dict[str, Any]]:
        """As of `_core.Model`."""
        return self._describe("outputs")

    def tensors(self) -> list[dict[str, Any]]:
        """As of `_core.Model`."""
        return self._describe("tensors")

    def context_bytes(self) -> int:
        """As of `_core.Model`."""
        return int(self._call("context_bytes")[0])

    def set_input(self, index: int, data: Any) -> None:
        """As of `_core.Context`."""
        self._call("set_input", bytes(memoryview(data).cast("B")), index=index)

    def run(self) -> None:
        """As of `_core.Context`."""
        self._call("run")

    def output(self, index: int) -> bytes:
        """As of `_core.Context`."""
        return self._call("output", index=index)[1]

    def tensor(self, index: int) -> bytes:
        """As of `_core.Context`."""
        return self._call("tensor", index=index)[1]

    def counters(self) -> dict[str, float]:
        """As of `_core.Context`."""
        return dict(self._call("counters")[0])

    def steps(self) -> list[tuple[str, str, int]]:
        """As of `_core.Context`."""
        return [(op, result, time_ns) for op, result, time_ns in self._call("steps")[0]]

    def close(self) -> None:
        """End the process; the object's end does it too."""
        self._end()

    def _describe(self, what: str) -> list[dict[str, Any]]:
        return list(self._call(what)[0])

    def _call(self, name: str, data: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        """One request and its answer: a JSON value and bytes."""
        deadline = time.monotonic() + self._timeout_s
        try:
            send(self._socket, {"call": name, **arguments}, data, deadline)
            head, answer = receive(self._socket, deadline)
        except TimeoutError:
            raise self._failure("GADL-R011", seconds=f"{self._timeout_s:g}") from None
        except (OSError, ValueError, MemoryError):  # it is gone, or wrote over its own memory
            raise self._failure("GADL-R010") from None
        if "failure" in head:
            error = _core.RuntimeFailure(head["failure"])
            error.status = head["status"]
            raise error
        return head["value"], answer

    def _failure(self, code: str, **values: str) -> GadlError:
        """The process is of no use any more: end it, and say what it said."""
        if code == "GADL-R010":
            values["how"] = _how_it_ended(self._process)
        self._process.kill()
        self._process.wait()
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - SHOWN_BYTES))
        said = self._output.read().decode("utf-8", "replace").strip() or "-"
        self._end()
        return GadlError.of(code, device=self._device.name, output=said, **values)


def send(to: socket.socket, head: dict[str, Any], data: bytes, deadline: float | None = None) -> None:
    """Write one message."""
    text = json.dumps(head).encode()
    _limit(to, deadline)
    to.sendall(HEAD.pack(len(text), len(data)) + text)
    _limit(to, deadline)
    to.sendall(data)


def receive(source: socket.socket, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
    """Read one message; `ConnectionError` when the other side is gone."""
    texts, bytes_ = HEAD.unpack(_exactly(source, HEAD.size, deadline))
    head = json.loads(_exactly(source, texts, deadline))
    return head, _exactly(source, bytes_, deadline)


def _exactly(source: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        _limit(source, deadline)
        got = source.recv_into(view[at:])
        if got == 0:
            raise ConnectionError("the other side is gone")
        at += got
    return bytes(data)


def _limit(of: socket.socket, deadline: float | None) -> None:
    if deadline is not None:
        of.settimeout(max(1e-3, deadline - time.monotonic()))


def _how_it_ended(process: subprocess.Popen[bytes]) -> str:
    """`SIGABRT`, or the exit status."""
    try:
        status = process.wait(5)
    except subprocess.TimeoutExpired:
        return "it closed its socket"
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _end(process: subprocess.Popen[bytes], link: socket.socket, output: IO[bytes]) -> None:
    link.close()
    if process.poll() is None:
        process.kill()
        process.wait()
    output.close()
