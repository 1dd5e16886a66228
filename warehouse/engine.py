"""The warehouse file of one machine: opening it, and whose turn it is.

The file is private to the writer (while it is open for writing, no other process can even read it); readers use
`serving/`. So writers take turns, and wait for theirs a while. Two more things are one process's at a time: streaming,
and putting a new version of `serving/` in the place of the last.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa
from filelock import FileLock

from ingestion.errors import WarehouseBusy
from ingestion.settings import Settings
from warehouse.remote_files import register
from warehouse.turns import Turn


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """Hold the warehouse for writing; raises WarehouseBusy when another process keeps it too long."""
    turn = turn_at(settings)
    take(turn, settings)
    try:
        yield
    finally:
        turn.give_back()


def turn_at(settings: Settings) -> Turn:
    """The turn at writing, not taken yet."""
    return Turn(settings.warehouse_path)


def streaming_turn(settings: Settings) -> Turn:
    """The turn at streaming, not taken yet."""
    return Turn(settings.home / "bus" / "streaming")


@contextmanager
def swapping(settings: Settings) -> Iterator[None]:
    """Hold what is served, for the moment in which a new version takes its place.

    Of its own, because bars that have just closed are shown also while another process holds the warehouse.
    """
    path = settings.warehouse_path.with_name("serving.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def take(turn: Turn, settings: Settings) -> None:
    """Take the turn at writing; raises WarehouseBusy."""
    if not turn.take(settings.warehouse_wait):
        raise WarehouseBusy(
            f"{settings.warehouse_path} is being written by another process since more than "
            f"{settings.warehouse_wait:.0f} s.",
            "Wait for it to end, or raise KLINEHOUSE_WAREHOUSE_WAIT.",
        )


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
    register(connection, settings)
    return connection


@contextmanager
def registered(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> Iterator[None]:
    """Let queries of a connection read rows under a name. (A hundred rows as literals take DuckDB longer to read than
    the query that they are part of takes altogether.)"""
    connection.register(name, rows)
    try:
        yield
    finally:
        connection.unregister(name)


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All that is done meanwhile, or nothing."""
    connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def text(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"
