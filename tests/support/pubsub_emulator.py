"""Google's official Pub/Sub emulator, which comes with the Google Cloud command line; it needs Java.

It speaks the real protocol and differs in this: it does not delay the first redelivery, ignores filters, and loses
everything at its end.
"""

import ctypes
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_JAR = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
_PARENT_DEATH_SIGNAL = 1
_START_SECONDS = 60
_libc = ctypes.CDLL(None)


def unavailable() -> str | None:
    """Why there is no emulator here; None when there is one."""
    if shutil.which("java") is None:
        return "the Pub/Sub emulator needs Java"
    if _jar() is None:
        return "no Pub/Sub emulator: gcloud components install pubsub-emulator"
    return None


def _jar() -> Path | None:
    gcloud = shutil.which("gcloud")
    return max(Path(gcloud).resolve().parents[1].glob(_JAR), default=None) if gcloud else None


@contextmanager
def running() -> Iterator[str]:
    """A running emulator; its HOST:PORT on loopback. It ends with this block, and with this process in any case."""
    port, iam_port = _free_ports()
    command = ["java", "-jar", str(_jar()), "--host=127.0.0.1", f"--port={port}", f"--iam_port={iam_port}"]
    emulator = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL),
    )
    try:
        _await(emulator, port)
        yield f"127.0.0.1:{port}"
    finally:
        emulator.kill()
        emulator.wait()


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _await(emulator: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and emulator.poll() is None:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"The Pub/Sub emulator does not listen (its exit code: {emulator.poll()}).")
