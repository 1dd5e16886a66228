"""Servers of other makers, run by a test: they listen on loopback and end with it, however it ends."""

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

_PARENT_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@contextmanager
def serving(command: Sequence[str], port: int, seconds: float = 60, **options: Any) -> Iterator[int]:
    """A process that listens on `port` of loopback; its pid. It has so many seconds to begin, says nothing unless
    `options` (of Popen) let it, and ends with this block, or with this process in any case."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        command, preexec_fn=lambda: _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL), **(quiet | options)
    )
    try:
        _await(server, port, seconds)
        yield server.pid
    finally:
        server.kill()
        server.wait()


def _await(server: subprocess.Popen[bytes], port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"{server.args} does not listen (its exit code: {server.poll()}).")
