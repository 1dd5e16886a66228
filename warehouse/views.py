"""`serving/klinehouse.duckdb`: only views, one per mart over an explicit list of files, and two in `bookkeeping` that
say which files those are and what fed them.

A new version is a new file of views, renamed over the old one: whoever opens it sees one consistent version of all.

With each bar that closes only the newest bars and `about` change. So these are views of their own, which the others
refer to, and the new file is a copy of the old one with these views replaced, as long as the others are the same:
else a version would cost the more, the more months there are.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import duckdb

from ingestion.errors import ConfigurationError
from ingestion.raw_zone import Environment
from ingestion.settings import Settings
from ingestion.store import sync_folder
from warehouse.engine import text, transaction
from warehouse.served_files import BARS, DESCRIPTION, DIMENSIONS, FILE_COLUMNS, HEALTH, ServedFile

VIEW_FILE = "klinehouse.duckdb"
_DIGEST = "bookkeeping.lasting_views"

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
    lasting = _lasting(files)
    passing = _passing(files) | {"bookkeeping.about": _about_view(version, environment)}
    try:
        try:
            has_lasting = _attach(connection, target, temporary, lasting)
            with transaction(connection):  # one, not one for each view: each waits for the disk
                _make(connection, passing if has_lasting else passing | lasting)
        finally:
            connection.execute("detach database if exists views")
        descriptor = os.open(temporary, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return version


# --- writing the file ---------------------------------------------------------------------------------------------


def _attach(connection: duckdb.DuckDBPyConnection, current: Path, temporary: Path, lasting: Mapping[str, str]) -> bool:
    """Attach as `views` a copy of the current file, if that has these lasting views, else an empty file.

    Making the views of six years anew takes three times as long as copying them. Returns whether it has them.
    """
    if current.exists():
        shutil.copyfile(current, temporary)
        connection.execute(f"attach {text(str(temporary))} as views")
        with suppress(duckdb.CatalogException):  # a file that names no digest
            if connection.execute(f"select * from views.{_DIGEST}").fetchall() == [(_digest(lasting),)]:
                return True
        connection.execute("detach views")
        temporary.unlink()
    connection.execute(f"attach {text(str(temporary))} as views (storage_version '{_STORAGE_VERSION}')")
    return False


def _make(connection: duckdb.DuckDBPyConnection, views: Mapping[str, str]) -> None:
    """In this order: a view can refer only to what is there."""
    for schema in dict.fromkeys(name.split(".")[0] for name in views):
        connection.execute(f"create schema if not exists views.{schema}")
    for name, query in views.items():
        connection.execute(f"create or replace view views.{name} as {query}")


# --- the views ----------------------------------------------------------------------------------------------------


def _passing(files: Sequence[ServedFile]) -> dict[str, str]:
    """Views that change with each bar that closes, by their names."""
    newest = [file for file in files if file.is_newest]
    opens = [file.first_open_time for file in newest if file.first_open_time]
    if not opens:
        return {}
    bars = f"select * from {_parquet(newest[:1])} where open_time >= timestamptz '{min(opens)}'"
    return {"bookkeeping.newest_bars": bars, "bookkeeping.newest_files": _files_view(newest)}


def _lasting(files: Sequence[ServedFile]) -> dict[str, str]:
    """Views over all files but that of the newest bars, by their names, and a digest of them. They refer to the passing
    ones: by a name without the database, which is looked up in that of the view, whatever a reader calls it."""
    others = [file for file in files if not file.is_newest]
    has_newest = len(others) < len(files)
    views = {
        f"crypto_analytics.{table}": f"select * from {_parquet([file for file in others if file.table_name == table])}"
        for table in (*DIMENSIONS, *HEALTH)
    }
    views[f"crypto_analytics.{BARS}"] = _bars(others, has_newest=has_newest)
    # Of the same name as on BigQuery, where only this one has the bars of the last minutes.
    views["crypto_analytics.market_data_live"] = f"select * from crypto_analytics.{BARS}"
    views["bookkeeping.files"] = _files_view(others) + (
        " union all from bookkeeping.newest_files" if has_newest else ""
    )
    return views | {_DIGEST: f"select {text(_digest(views))} as digest"}


def _digest(views: Mapping[str, str]) -> str:
    told = "\n".join(f"{name} {query}" for name, query in views.items() if name != _DIGEST)
    return hashlib.sha256(told.encode()).hexdigest()


def _bars(months: Sequence[ServedFile], *, has_newest: bool) -> str:
    # The folders name symbol and interval, so a question about one series opens only its own files; and one about a
    # time only those of its years, because the condition of each other year contradicts it. Still each question looks
    # every path up (20 us), because of the folders. Tried: symbol and interval cut from `filename` instead; paths are
    # looked up only in the years asked for, but questions about all years take half as long again.
    by_month = sorted((file for file in months if file.is_month), key=lambda file: str(file.month))
    branches = [
        f"select * from {_parquet(list(of_year), _HIVE)} where open_time >= timestamptz '{year}-01-01 00:00:00+00' "
        f"and open_time < timestamptz '{year + 1}-01-01 00:00:00+00'"
        for year, of_year in groupby(by_month, key=lambda file: int(str(file.month)[:4]))
    ]
    return " union all ".join([*branches, *(["from bookkeeping.newest_bars"] if has_newest else [])])


def _parquet(files: Sequence[ServedFile], options: str = "") -> str:
    """A table over files. Their paths are one literal, cut again in planning: a thousand literals take it longer."""
    # Absolute paths: DuckDB would resolve relative ones against the reader's working folder.
    paths = [file.path for file in files]
    if any("\n" in path for path in paths):
        raise ConfigurationError(f"{paths[0]} has a line break in it.", "Set KLINEHOUSE_HOME to another folder.")
    shared = _shared(paths)
    listed = "\n".join(path.removeprefix(shared) for path in paths)
    whole = f"{text(shared)} || replace({text(listed)}, chr(10), chr(10) || {text(shared)})"
    return f"read_parquet(string_split({whole}, chr(10)){options})"


def _files_view(files: Sequence[ServedFile]) -> str:
    """Files as a view: a line of text for each, with its fields between tabs, cut when the view is read."""
    shared = _shared([file.path for file in files])
    lines = "\n".join(f"{file.described}\t{file.path.removeprefix(shared)}" for file in files)
    fields = {
        name: f"nullif(split_part(line, chr(9), {i}), '')::{_FILE_TYPES.get(name, 'varchar')}"
        for i, name in enumerate(DESCRIPTION, 1)
    }
    fields["path"] = f"{text(shared)} || split_part(line, chr(9), {len(fields) + 1})"
    columns = ", ".join(f'{fields[name]} as "{name}"' for name in FILE_COLUMNS)
    return f"select {columns} from (select unnest(string_split({text(lines)}, chr(10))) as line)"


def _shared(paths: Sequence[str]) -> str:
    """What all paths begin with; it is half of the file of views."""
    return os.path.commonpath((min(paths), max(paths)))


def _about_view(version: str, environment: Environment | None) -> str:
    source = environment.source_environment if environment else "none"
    simulation = text(environment.simulation) if environment and environment.simulation else "null::varchar"
    published_at = datetime.now(UTC).isoformat()
    return (
        f"select {text(version)} as version, {text(source)} as source_environment, {simulation} as simulation, "
        f"{text(published_at)}::timestamptz as published_at"
    )
