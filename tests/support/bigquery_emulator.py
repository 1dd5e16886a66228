"""`local-bigquery`, an emulator of BigQuery: its REST and Storage APIs over DuckDB, on loopback.

What it says about rows can be trusted where Google's own reference executor says the same (tests/dbt_project); what it
says about time, bytes and quotas cannot.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_ports, serving

PROJECT = "klinehouse-test"

_PROGRAM = Path(__file__).parent / "programs" / "bigquery_server.py"


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
    """A running emulator that keeps its data in `folder` and finds gs://bucket/name at `objects`/bucket/name. What it
    says is in `folder`/emulator.log."""
    port, storage_port = free_ports(2)
    environment = os.environ | {"EXTENSIONS": str(folder / "extensions"), "DATA_DIR": str(folder / "data"), "TZ": "UTC"}
    if objects is not None:
        environment["GCS_LOCAL_ROOT"] = str(objects)
    environment.pop("STORAGE_EMULATOR_HOST", None)
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(python, str(_PROGRAM), "serve", "--host", "127.0.0.1", f"--port={port}"),
        *(f"--grpc-port={storage_port}", f"--project={PROJECT}", f"--data-dir={folder / 'data'}"),
    ]
    with (
        (folder / "emulator.log").open("wb") as log,
        serving(command, port, env=environment, stdout=log, stderr=subprocess.STDOUT) as pid,
    ):
        yield Emulator(f"http://127.0.0.1:{port}", f"127.0.0.1:{storage_port}", pid)
