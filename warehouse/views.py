"""`serving/klinehouse.duckdb`: only views, one per mart over an explicit list of files, and two in `bookkeeping` that
say which files those are and what fed them.

A new version is a new file of views, renamed over the old one: whoever opens it sees one consistent version of all.
"""

import hashlib
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

import duckdb

from ingestion.errors import ConfigurationError
from ingestion.raw_zone import Environment
from ingestion.settings import Settings
from ingestion.store import sync_folder
from warehouse.engine import text
from warehouse.served_files import BARS, DIMENSIONS, HEALTH, ServedFile

VIEW_FILE = "klinehouse.duckdb"
FILE_COLUMNS = (
    *("table_name", "symbol", "interval", "month", "path", "rows", "bytes", "first_open_time", "last_close_time"),
)

# A plain 2.0 file is not opened by drivers built on DuckDB 1.x; one of this storage version is.
_STORAGE_VERSION = "v1.0.0"
_HIVE = ", hive_partitioning = true, hive_types = {'symbol': varchar, 'interval': varchar}"
_FILE_TYPES = {"rows": "bigint", "bytes": "bigint", "first_open_time": "timestamptz", "last_close_time": "timestamptz"}


def swap_views(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    files: Sequence[ServedFile],
    environment: Environment | None,
) -> str:
    """Make a view file over `files` and rename it over the current one. Returns the version's name.

    `connection` is any, between two transactions: a database of its own would cost 40 ms.
    """
    version = hashlib.sha256("\n".join(file.path for file in files).encode()).hexdigest()[:16]
    target = settings.serving_dir / VIEW_FILE
    temporary = target.with_name(f".{VIEW_FILE}.{uuid.uuid4().hex}")
    try:
        connection.execute(f"attach {text(str(temporary))} as views (storage_version '{_STORAGE_VERSION}')")
        try:
            connection.execute("create schema views.crypto_analytics")
            connection.execute("create schema views.bookkeeping")
            for table in (BARS, *DIMENSIONS, *HEALTH):
                connection.execute(f"create view views.crypto_analytics.{table} as {_select(table, files)}")
            connection.execute(f"create view views.bookkeeping.files as {_files_view(files)}")
            connection.execute(f"create view views.bookkeeping.about as {_about_view(version, environment)}")
        finally:
            connection.execute("detach views")
        descriptor = os.open(temporary, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return version


def _select(table: str, files: Sequence[ServedFile]) -> str:
    own = [file for file in files if file.table_name == table]
    if table != BARS:
        return f"select * from {_parquet(own)}"
    # The folders name symbol and interval, so a question about one series opens only its own files; and one about a
    # time only those of its years, because the condition of each other year contradicts it.
    months = sorted((file for file in own if file.is_month), key=lambda file: str(file.month))
    branches = [
        f"select * from {_parquet(list(of_year), _HIVE)} where open_time >= timestamptz '{year}-01-01 00:00:00+00' "
        f"and open_time < timestamptz '{year + 1}-01-01 00:00:00+00'"
        for year, of_year in groupby(months, key=lambda file: int(str(file.month)[:4]))
    ]
    return " union all ".join([*branches, *_newest([file for file in own if file.is_newest])])


def _newest(files: Sequence[ServedFile]) -> list[str]:
    opens = [file.first_open_time for file in files if file.first_open_time]
    return [f"select * from {_parquet(files[:1])} where open_time >= timestamptz '{min(opens)}'"] if opens else []


def _parquet(files: Sequence[ServedFile], options: str = "") -> str:
    """A table over files. Their paths are one literal, cut again in planning: a thousand literals take it longer."""
    # Absolute paths: DuckDB would resolve relative ones against the reader's working folder.
    paths = [file.path for file in files]
    if any("\n" in path for path in paths):
        raise ConfigurationError(f"{paths[0]} has a line break in it.", "Set KLINEHOUSE_HOME to another folder.")
    listed = "\n".join(paths)
    return f"read_parquet(string_split({text(listed)}, chr(10)){options})"


def _files_view(files: Sequence[ServedFile]) -> str:
    """All files as a view: a line of text for each, with its fields between tabs, cut when the view is read."""
    told = attrgetter(*FILE_COLUMNS)
    lines = "\n".join("\t".join("" if value is None else str(value) for value in told(file)) for file in files)
    fields = ", ".join(
        f"nullif(split_part(line, chr(9), {i}), '')::{_FILE_TYPES.get(name, 'varchar')} as \"{name}\""
        for i, name in enumerate(FILE_COLUMNS, 1)
    )
    return f"select {fields} from (select unnest(string_split({text(lines)}, chr(10))) as line)"


def _about_view(version: str, environment: Environment | None) -> str:
    source = environment.source_environment if environment else "none"
    simulation = text(environment.simulation) if environment and environment.simulation else "null::varchar"
    published_at = datetime.now(UTC).isoformat()
    return (
        f"select {text(version)} as version, {text(source)} as source_environment, {simulation} as simulation, "
        f"{text(published_at)}::timestamptz as published_at"
    )
