"""The warehouse file of one machine: opening it, and the lock that keeps writers apart.

The file is private to the writer (while it is open for writing, no other process can even read it); readers use
`serving/`. So every writer takes the lock first, and waits for it a while.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from filelock import FileLock, Timeout

from ingestion.errors import WarehouseBusy
from ingestion.settings import Settings


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """Hold the warehouse for writing; raises WarehouseBusy when another process keeps it too long."""
    path = settings.warehouse_path
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"), timeout=settings.warehouse_wait)
    try:
        lock.acquire()
    except Timeout as error:
        raise WarehouseBusy(
            f"{path} is being written by another process since more than {settings.warehouse_wait:.0f} s.",
            "Wait for it to end, or raise KLINEHOUSE_WAREHOUSE_WAIT.",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def connect(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse file. The caller holds `writing`."""
    try:
        connection = duckdb.connect(settings.warehouse_path)
    except duckdb.Error as error:
        if "lock" not in str(error):
            raise
        raise WarehouseBusy(
            f"{settings.warehouse_path} is open in another process.",
            "Close it there; to read, use serving/klinehouse.duckdb instead.",
        ) from error
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"set memory_limit = '{settings.warehouse_memory_mb}MB'")
        yield connection
    finally:
        connection.close()


def text(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"
