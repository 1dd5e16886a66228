"""How DuckDB reads a raw zone that is not on this machine: through the raw zone's own store.

So no extension is downloaded, credentials are the same, and each file is read whole in one request: DuckDB's own way
asks six times each time that it opens one, and what is replaced meanwhile would be read in parts of two versions.
"""

import io
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

import duckdb
from fsspec import AbstractFileSystem

from ingestion.raw_zone import RawZone
from ingestion.settings import Settings

# A dbt run opens each file some ten times. What is replaced meanwhile is built by the run that replaced it.
_KEPT_SECONDS, _KEPT_BYTES = 30.0, 1 << 28


class _Files(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What DuckDB asks of a file system, of paths that are known to be there."""

    cachable = False

    def __init__(self, zone: RawZone) -> None:
        super().__init__()
        self.protocol = zone.protocol
        self._zone = zone
        self._sizes: dict[str, int] = {}
        self._kept: dict[str, tuple[float, bytes]] = {}
        self._lock = threading.Lock()

    def glob(self, path: str, **_: Any) -> list[str]:
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        with self._lock:
            fetched_at, content = self._kept.get(path, (-math.inf, b""))
        if time.monotonic() - fetched_at > _KEPT_SECONDS:
            content = self._zone.content_at(path)
            self._keep(path, content)
        return io.BytesIO(content)

    def _keep(self, path: str, content: bytes) -> None:
        with self._lock:
            self._sizes[path] = len(content)
            self._kept.pop(path, None)
            self._kept[path] = time.monotonic(), content
            # The oldest first.
            while len(self._kept) > 1 and sum(len(kept) for _, kept in self._kept.values()) > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]

    def size(self, path: str) -> int:
        return self._sizes[path]

    def modified(self, path: str) -> datetime:
        """Now: which version it is is not asked, so DuckDB is to keep nothing of it."""
        return datetime.now(UTC)


def register(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Let every connection of this process to the same database read the raw zone, until the last of them closes."""
    if not settings.raw_url:
        return
    zone = RawZone(settings.raw_root)
    if not zone.is_local and zone.protocol not in connection.list_filesystems():
        connection.register_filesystem(_Files(zone))


@contextmanager
def registered(settings: Settings) -> Iterator[None]:
    """The same for connections that others open meanwhile to the warehouse's file, such as dbt."""
    with duckdb.connect(settings.warehouse_path) if settings.raw_url else nullcontext() as connection:
        if connection is not None:
            register(connection, settings)
        yield
