"""Publishing to `serving/`, and reading from it.

Publishing writes files under new names, then makes a new file of views over them, so a reader that still has the old
one open keeps reading the old files; those go after a grace period. A history build writes every month that changed
anew; the streaming run puts bars that have just closed beside them, in the file of the newest bars, and shows them
there even before the warehouse has them.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from ingestion.errors import ConfigurationError, UsageError
from ingestion.klines import Month, Series, month_window
from ingestion.raw_zone import SIMULATED, RawZone
from ingestion.settings import Settings
from warehouse.engine import connect, streaming_turn, swapping, text, writing
from warehouse.newest_bars import add_to_newest, write_newest
from warehouse.query_result import QueryResult
from warehouse.served_files import (
    BARS,
    DIMENSIONS,
    FILE_COLUMNS,
    HEALTH,
    MONTH_OF_BAR,
    SeriesMonths,
    ServedFile,
    merge,
    write_dimension,
    write_months,
)
from warehouse.views import VIEW_FILE, swap_views

# More than there are cores: they wait for the disk (a durable write takes 5 ms alone, 1 ms among four).
_WRITERS = 6


@dataclass(frozen=True)
class Published:
    """What a publish did: the months that were written anew, and the files and rows of the whole version."""

    months_written: int
    files: int
    rows: int
    version: str


@dataclass(frozen=True)
class Change:
    """A month of a series that was built since it was published; `since` is the first bar that changed."""

    series: Series
    month: Month
    since: datetime
    invocation: str | None


class Served:
    """The files of the published version, read again only when another process has published."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: tuple[tuple[int, int] | None, list[ServedFile]] = (None, [])

    def files(self) -> list[ServedFile]:
        """None when nothing has been published."""
        version = self._version()
        if version != self._known[0]:
            self._known = (version, served_files(self._settings))
        return self._known[1]

    def are_now(self, files: list[ServedFile]) -> None:
        """Take note of a version that this process has published. The caller is `swapping`."""
        self._known = (self._version(), files)

    def _version(self) -> tuple[int, int] | None:
        try:
            found = (self._settings.serving_dir / VIEW_FILE).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


def publish(settings: Settings) -> Published:
    """Publish every month that changed since the last publish, and the dimensions. Idempotent.

    On BigQuery readers ask the tables themselves: there is nothing to publish.
    """
    if settings.target == "bigquery":
        from warehouse.bigquery.reading import bars_in_tables

        return Published(0, 0, bars_in_tables(settings), "")
    with writing(settings), connect(settings) as connection:
        is_streaming = streaming_turn(settings).is_anothers()
        published, files = publish_bars(
            settings, connection, Served(settings), with_dimensions=True, keep_shown=is_streaming
        )
    collect_garbage(settings, files)
    return published


def publish_bars(
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    served: Served,
    *,
    with_dimensions: bool = False,
    keep_months: bool = False,
    keep_shown: bool = False,
) -> tuple[Published, list[ServedFile]]:
    """Publish every month that changed, with the dimensions as they are now or as they are served; the caller holds the
    warehouse. With `keep_months` bars that are newer than a month's file leave that as it is, and go into the file of
    the newest bars. With `keep_shown` bars stay that are served and not in the warehouse yet. Returns the files of the
    new version too."""
    changes = _changes(connection)
    # Nobody else can change what is served of months: the warehouse is the caller's.
    months = _months_to_write(connection, served.files(), changes, keep_months=keep_months)
    with ThreadPoolExecutor(_WRITERS) as pool:
        written = [
            file
            for series, of_series in months.items()
            for file in write_months(connection, settings, series, of_series, pool)
        ]
    tables = (*DIMENSIONS, *HEALTH) if with_dimensions else ()
    dimensions = [write_dimension(connection, settings, name) for name in tables]
    with swapping(settings):
        current = served.files()
        files = merge([file for file in current if not file.is_newest], months, [*written, *dimensions])
        if keep_months or keep_shown:
            shown = [file for file in current if file.is_newest] if keep_shown else []
            newest = _newest(settings, connection, current, files, changes if keep_months else (), shown)
            files = merge(files, {}, newest)
        version = _swap(settings, connection, served, files)
    _forget(connection, changes)
    rows = sum(file.rows for file in files if file.table_name == BARS)
    return Published(len(written), len({file.path for file in files}), rows, version), files


def show(settings: Settings, connection: duckdb.DuckDBPyConnection, served: Served, fresh: pa.Table) -> None:
    """Publish bars that the warehouse does not have yet, rows of the main table. `connection` is any; nobody needs to
    hold the warehouse. The next `publish_bars` with `keep_shown` takes what the warehouse has by then from there."""
    with swapping(settings):
        current = served.files()
        newest = [file for file in current if file.is_newest]
        written = add_to_newest(connection, settings, newest, fresh, _served_until(current))
        _swap(settings, connection, served, merge([file for file in current if not file.is_newest], {}, written))


def _swap(settings: Settings, connection: duckdb.DuckDBPyConnection, served: Served, files: list[ServedFile]) -> str:
    _start_grace(served.files(), files)
    version = swap_views(connection, settings, files, RawZone(settings.raw_root).environment())
    served.are_now(files)
    return version


# --- what changed ------------------------------------------------------------------------------------------------


def _changes(connection: duckdb.DuckDBPyConnection) -> list[Change]:
    try:
        rows = connection.execute(
            'select symbol, "interval", month_start, changed_from, invocation from bookkeeping.unpublished'
        ).fetchall()
    except duckdb.CatalogException as error:
        raise ConfigurationError("There is no warehouse to publish.", "Run `klinehouse build` first.") from error
    return [
        Change(Series(symbol, interval), _month_of(start), since, invocation)
        for symbol, interval, start, since, invocation in rows
    ]


def _months_to_write(
    connection: duckdb.DuckDBPyConnection, served: Sequence[ServedFile], changes: Sequence[Change], *, keep_months: bool
) -> SeriesMonths:
    if not served:
        return _all_months(connection)
    if keep_months:
        until = _written_until(served)
        return _by_series((change.series, change.month) for change in changes if not _is_newer(change, until))
    # Also the months of which bars are among the newest: these become part of them.
    newest = [
        (file.series, month)
        for file in served
        if file.is_newest and file.first_open_time and file.last_close_time
        for month in month_window((file.first_open_time, file.last_close_time))
    ]
    return _by_series([*((change.series, change.month) for change in changes), *newest])


def _all_months(connection: duckdb.DuckDBPyConnection) -> SeriesMonths:
    rows = connection.execute(
        f"""select distinct symbol, "interval", {MONTH_OF_BAR}::timestamptz from crypto_analytics.{BARS}"""
    ).fetchall()
    return _by_series((Series(symbol, interval), _month_of(start)) for symbol, interval, start in rows)


def _by_series(months: Iterable[tuple[Series, Month]]) -> SeriesMonths:
    found: SeriesMonths = {}
    for series, month in sorted(set(months)):
        found.setdefault(series, []).append(month)
    return found


def _month_of(start: datetime) -> Month:
    return Month.containing(start.astimezone(UTC).date())


def _forget(connection: duckdb.DuckDBPyConnection, changes: Sequence[Change]) -> None:
    for invocation in {change.invocation for change in changes}:
        connection.execute("delete from bookkeeping.unpublished where invocation = ?", [invocation])


# --- the newest bars ---------------------------------------------------------------------------------------------


def _newest(
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    served: Sequence[ServedFile],
    files: Sequence[ServedFile],
    changes: Sequence[Change],
    shown: Sequence[ServedFile],
) -> list[ServedFile]:
    """The file of the newest bars of all series that have any, beside the months' `files` of the next version."""
    until = _written_until(files)
    series = {file.series for file in served if file.is_newest} | {change.series for change in changes}
    wanted = {one: until[one] for one in series if one in until}
    return write_newest(connection, settings, wanted, shown) if wanted else []


def _written_until(files: Sequence[ServedFile]) -> dict[Series, datetime]:
    """The close of the last bar that the months' files of each series have."""
    months = sorted((file for file in files if file.is_month), key=lambda file: str(file.month))
    latest = {(file.symbol, file.interval): file for file in months}
    return {file.series: file.last_close_time for file in latest.values() if file.last_close_time}


def _served_until(files: Sequence[ServedFile]) -> dict[Series, datetime]:
    """The close of the last bar of each series."""
    until: dict[Series, datetime] = {}
    for file in files:
        if file.table_name == BARS and file.last_close_time:
            until[file.series] = max(file.last_close_time, until.get(file.series, file.last_close_time))
    return until


def _is_newer(change: Change, until: Mapping[Series, datetime]) -> bool:
    return change.series in until and change.since > until[change.series]


# --- superseded files --------------------------------------------------------------------------------------------


def _start_grace(served: Sequence[ServedFile], files: Sequence[ServedFile]) -> None:
    """Mark the files that the next version supersedes: their modification time becomes now, before the swap."""
    current = {file.path for file in files}
    for file in served:
        if file.path not in current:
            os.utime(file.path)


def collect_garbage(settings: Settings, files: Sequence[ServedFile]) -> None:
    """Remove files of no version that are older than the grace period: superseded ones, and leftovers of a crash."""
    current = {file.path for file in files}
    oldest = time.time() - settings.serving_grace
    for path in settings.serving_dir.rglob("*"):
        is_ours = path.suffix == ".parquet" or path.name.startswith(".")
        if is_ours and path.is_file() and str(path) not in current and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


# --- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def reading(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to the published version, which can see nothing else of the machine.

    Raises ConfigurationError when nothing has been published. A connection kept open keeps its version: open a new
    one to see a newer one.
    """
    path = settings.serving_dir / VIEW_FILE
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist.", "Run `klinehouse backfill` or `klinehouse build` first.")
    # Attached to a database of its own: duckdb.connect(path) would hand out the file that this process already has open
    # under that name, an older version and with its settings locked.
    connection = duckdb.connect()
    try:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {text(str(path))} as klinehouse (read_only)")
        connection.execute("use klinehouse.crypto_analytics")
        # In this order: the folder is allowed, everything else is not, and neither can be changed any more.
        connection.execute(f"set allowed_directories = [{text(str(settings.serving_dir))}]")
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
        yield connection
    finally:
        connection.close()


def run_query(
    settings: Settings,
    sql: str,
    limit: int | None = None,
    parameters: Sequence[object] = (),
    max_gb: float | None = None,
) -> QueryResult:
    """Run one query of a user against the published version; raises UsageError with what the engine says of it.

    Tables can be named without their schema. At most `limit` rows come back. `max_gb` bounds what BigQuery may read.
    """
    if settings.target == "bigquery":
        from warehouse.bigquery import reading as on_bigquery  # Google's libraries take a second to import

        return on_bigquery.run_query(settings, sql, limit, parameters, max_gb)
    with reading(settings) as connection:
        try:
            cursor = connection.execute(sql, parameters)
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
            return QueryResult([column[0] for column in cursor.description or ()], rows)
        except duckdb.Error as error:
            message = " ".join(str(error).split("\n\n")[0].split())
            raise UsageError(message, "`klinehouse query 'show all tables'` lists what there is.") from error


def served_files(settings: Settings) -> list[ServedFile]:
    """The files of the published version; none when nothing has been published."""
    if not (settings.serving_dir / VIEW_FILE).exists():
        return []
    with reading(settings) as connection:
        columns = ", ".join(f'"{name}"' for name in FILE_COLUMNS)
        rows = connection.execute(f"select {columns} from bookkeeping.files").fetchall()
    return [ServedFile(**dict(zip(FILE_COLUMNS, row, strict=True))) for row in rows]


def is_simulated(settings: Settings) -> bool:
    """Whether the data of this home came from the simulated exchange."""
    environment = RawZone(settings.raw_root).environment()
    return environment is not None and environment.source_environment == SIMULATED
