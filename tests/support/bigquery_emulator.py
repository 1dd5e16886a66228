"""`local-bigquery`, an emulator of BigQuery: its REST and Storage APIs over DuckDB, on loopback.

What it says about rows can be trusted where Google's own reference executor says the same (tests/dbt_project); what it
says about time, bytes and quotas cannot.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = "klinehouse-test"

_PROGRAM = Path(__file__).parent / "programs" / "bigquery_server.py"
_PARENT_DEATH_SIGNAL = 1
_START_SECONDS = 60
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Emulator:
    """Where a running emulator listens: `url` of its REST API, `storage` HOST:PORT of its Storage API (gRPC)."""

    url: str
    storage: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "BIGQUERY_EMULATOR_HOST": self.url,
            "BIGQUERY_STORAGE_EMULATOR_HOST": self.storage,
            "KLINEHOUSE_TARGET": "bigquery",
            "KLINEHOUSE_BIGQUERY_PROJECT": PROJECT,
        }


def unavailable(python: Path) -> str | None:
    """Why there is no emulator here; None when there is one. `python` is that of the environment of the stand-ins."""
    if not python.is_file():
        return "KLINEHOUSE_TEST_BIGQUERY does not name a Python of the environment of the stand-ins"
    if not any(python.parents[1].glob("lib/python*/site-packages/local_bigquery")):
        return f"{python} has no local_bigquery"
    return None


@contextmanager
def running(python: str, folder: Path, objects: Path | None = None) -> Iterator[Emulator]:
    """A running emulator that keeps its data in `folder` and finds gs://bucket/name at `objects`/bucket/name. It ends
    with this block, and with this process in any case."""
    port, storage_port = _free_ports()
    environment = os.environ | {"EXTENSIONS": str(folder / "extensions"), "DATA_DIR": str(folder / "data")}
    if objects is not None:
        environment["GCS_LOCAL_ROOT"] = str(objects)
    environment.pop("STORAGE_EMULATOR_HOST", None)
    environment["TZ"] = "UTC"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "emulator.log").open("wb") as log:
        emulator = subprocess.Popen(
            [
                *(python, str(_PROGRAM), "serve", "--host", "127.0.0.1", f"--port={port}"),
                *(f"--grpc-port={storage_port}", f"--project={PROJECT}", f"--data-dir={folder / 'data'}"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=lambda: _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL),
        )
    try:
        _await(emulator, port, folder / "emulator.log")
        yield Emulator(f"http://127.0.0.1:{port}", f"127.0.0.1:{storage_port}", emulator.pid)
    finally:
        emulator.kill()
        emulator.wait()


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def _await(emulator: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and emulator.poll() is None:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"The BigQuery emulator does not listen: {log.read_text()[-2000:]}")
