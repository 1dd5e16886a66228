"""The warehouse file of one machine: opening it, and the lock that keeps writers apart.

The file is private to the writer (while it is open for writing, no other process can even read it); readers use
`serving/`. So every writer takes the lock first, and waits for it a while. Who waits holds a second lock meanwhile, so
that a writer that would keep the first one between two pieces of work (`warehouse.live`) sees that it is wanted.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from filelock import BaseFileLock, FileLock, Timeout

from ingestion.errors import WarehouseBusy
from ingestion.settings import Settings


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """Hold the warehouse for writing; raises WarehouseBusy when another process keeps it too long."""
    lock = acquire(settings)
    try:
        yield
    finally:
        lock.release()


def acquire(settings: Settings) -> BaseFileLock:
    """The lock of the writer, which the caller has to release; raises WarehouseBusy."""
    path = settings.warehouse_path
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, until = FileLock(path.with_suffix(".lock")), time.monotonic() + settings.warehouse_wait
    try:
        with _queue(settings).acquire(settings.warehouse_wait):
            return lock.acquire(max(until - time.monotonic(), 0)).lock
    except Timeout as error:
        raise WarehouseBusy(
            f"{path} is being written by another process since more than {settings.warehouse_wait:.0f} s.",
            "Wait for it to end, or raise KLINEHOUSE_WAREHOUSE_WAIT.",
        ) from error


def is_wanted(settings: Settings) -> bool:
    """Whether another process waits for the warehouse."""
    try:
        with _queue(settings).acquire(0):
            return False
    except Timeout:
        return True


def _queue(settings: Settings) -> BaseFileLock:
    return FileLock(settings.warehouse_path.with_suffix(".queue"))


@contextmanager
def connect(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the warehouse file for a while. The caller holds `writing`."""
    connection = open_warehouse(settings)
    try:
        yield connection
    finally:
        connection.close()


def open_warehouse(settings: Settings) -> duckdb.DuckDBPyConnection:
    """Open the warehouse file; the caller holds `writing`, and closes it. Raises WarehouseBusy."""
    try:
        connection = duckdb.connect(settings.warehouse_path)
    except duckdb.Error as error:
        if "lock" not in str(error):
            raise
        raise WarehouseBusy(
            f"{settings.warehouse_path} is open in another process.",
            "Close it there; to read, use serving/klinehouse.duckdb instead.",
        ) from error
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(f"set memory_limit = '{settings.warehouse_memory_mb}MB'")
    return connection


def text(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"
