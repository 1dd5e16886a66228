"""Publishing to `serving/`, and reading from it.

    serving/crypto_analytics/market_data_unified/symbol=S/interval=I/YYYY-MM.<version>.parquet
    serving/crypto_analytics/<dimension>.<version>.parquet
    serving/klinehouse.duckdb      only views: one per mart over an explicit list of files, and two in `bookkeeping`
                                   that say which files those are and what fed them

Files never change: their version is a hash of their content. Publishing writes the changed months under new names,
makes a new view file and renames it over the old one, so whoever opens it sees one consistent version of everything,
and a reader that still has the old one open keeps reading the old files; those go after a grace period.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.errors import ConfigurationError, UsageError
from ingestion.klines import Month, Series
from ingestion.raw_zone import SIMULATED, Environment, RawZone
from ingestion.settings import Settings
from ingestion.store import sync_folder, write_durably
from warehouse.engine import connect, text, writing

BARS = "market_data_unified"
DIMENSIONS = ("dim_dates", "dim_hours", "dim_symbols")
HEALTH = ("klines_gaps", "klines_reconciliation")
VIEW_FILE = "klinehouse.duckdb"

# A plain 2.0 file is not opened by drivers built on DuckDB 1.x; one of this storage version is.
_STORAGE_VERSION = "v1.0.0"
_FILE_COLUMNS = 'table_name, symbol, "interval", month, path, rows, bytes, first_open_time, last_close_time'
# Of plain timestamps: for instants DuckDB asks a calendar library, ten times slower.
_MONTH = "date_trunc('month', make_timestamp(epoch_us(open_time)))"
_HIVE = ", hive_partitioning = true, hive_types = {'symbol': varchar, 'interval': varchar}"
_FILE_TYPES = {"rows": "bigint", "bytes": "bigint", "first_open_time": "timestamptz", "last_close_time": "timestamptz"}

# More than there are cores: they wait for the disk (a durable write takes 5 ms alone, 1 ms among four).
_WRITERS = 6


@dataclass(frozen=True)
class ServedFile:
    """One file of the published version: a month of a series, or a whole dimension (no symbol, interval, month)."""

    table_name: str
    path: str
    rows: int
    bytes: int
    symbol: str | None = None
    interval: str | None = None
    month: str | None = None
    first_open_time: datetime | None = None
    last_close_time: datetime | None = None


@dataclass(frozen=True)
class Published:
    """What a publish did: the months that were written anew, and the files and rows of the whole version."""

    months_written: int
    files: int
    rows: int
    version: str


SeriesMonths = dict[Series, list[Month]]


def publish(settings: Settings) -> Published:
    """Publish every month that changed since the last publish, and the dimensions. Idempotent."""
    with writing(settings), connect(settings) as connection:
        published, files = publish_bars(settings, connection, served_files(settings), with_dimensions=True)
    collect_garbage(settings, files)
    return published


def publish_bars(
    settings: Settings,
    connection: duckdb.DuckDBPyConnection,
    served: Sequence[ServedFile],
    *,
    with_dimensions: bool = False,
) -> tuple[Published, list[ServedFile]]:
    """Publish every month that changed, with the dimensions as they are now or as they are served; the caller holds the
    warehouse, and knows what is served. Returns the files of the new version too."""
    environment = RawZone(settings.raw_root).environment()
    noted = _unpublished(connection)
    changed = _by_series([row[:3] for row in noted]) if served else _all_months(connection)
    with ThreadPoolExecutor(_WRITERS) as pool:
        written = [
            file
            for series, months in changed.items()
            for file in _write_bars(connection, settings, series, months, pool)
        ]
    dimensions = [_write_dimension(connection, settings, name) for name in (*DIMENSIONS, *HEALTH) if with_dimensions]
    files = merge(served, changed, [*written, *dimensions])
    _start_grace(served, files)
    version = _swap_views(settings, files, environment)
    _forget(connection, noted)
    rows = sum(file.rows for file in files if file.table_name == BARS)
    return Published(len(written), len(files), rows, version), files


def merge(served: Sequence[ServedFile], changed: SeriesMonths, written: Sequence[ServedFile]) -> list[ServedFile]:
    """The files of the next version: what is served, without the months that changed, and what was written."""
    gone: set[tuple[str | None, ...]] = {
        (BARS, series.symbol, series.interval, str(month)) for series, months in changed.items() for month in months
    }
    gone |= {(file.table_name, file.symbol, file.interval, file.month) for file in written}
    kept = [file for file in served if (file.table_name, file.symbol, file.interval, file.month) not in gone]
    order = [BARS, *DIMENSIONS, *HEALTH]
    return sorted(
        [*kept, *written],
        key=lambda file: (order.index(file.table_name), file.symbol or "", file.interval or "", file.month or ""),
    )


# --- what changed ------------------------------------------------------------------------------------------------


def _unpublished(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, datetime, str]]:
    try:
        return connection.execute("from bookkeeping.unpublished").fetchall()
    except duckdb.CatalogException as error:
        raise ConfigurationError("There is no warehouse to publish.", "Run `klinehouse build` first.") from error


def _all_months(connection: duckdb.DuckDBPyConnection) -> SeriesMonths:
    return _by_series(
        connection.execute(
            f"""select distinct symbol, "interval", {_MONTH}::timestamptz from crypto_analytics.{BARS}"""
        ).fetchall()
    )


def _by_series(rows: Sequence[tuple[str, str, datetime]]) -> SeriesMonths:
    found: SeriesMonths = {}
    for symbol, interval, start in sorted(set(rows)):
        found.setdefault(Series(symbol, interval), []).append(Month.containing(start.astimezone(UTC).date()))
    return found


def _forget(connection: duckdb.DuckDBPyConnection, noted: Sequence[tuple[str, str, datetime, str]]) -> None:
    for invocation in {row[3] for row in noted}:
        connection.execute("delete from bookkeeping.unpublished where invocation = ?", [invocation])


# --- writing -----------------------------------------------------------------------------------------------------


def _write_bars(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    series: Series,
    months: Sequence[Month],
    pool: ThreadPoolExecutor,
) -> list[ServedFile]:
    """Write the given months of a series, each as one file; a month that has no bars any more has no file."""
    bars = f"""from crypto_analytics.{BARS}
        where symbol = $symbol and "interval" = $interval and open_time >= $start and open_time < $end"""
    chosen = asdict(series) | {"start": months[0].start, "end": months[-1].end}
    rows = connection.sql(f"select * {bars} order by open_time", params=chosen).to_arrow_table()
    # Asked of DuckDB, because pyarrow would import pandas to tell or compare an instant (a second).
    extents = connection.execute(
        f"select {_MONTH}, count(*), min(open_time), max(close_time) {bars} group by 1 order by 1", chosen
    ).fetchall()
    folder = (
        settings.serving_dir / "crypto_analytics" / BARS / f"symbol={series.symbol}" / f"interval={series.interval}"
    )

    def write(part: pa.Table, extent: tuple[datetime, int, datetime, datetime]) -> ServedFile:
        month = str(Month.containing(extent[0].date()))
        return replace(
            _write_versioned(folder, month, part, BARS),
            symbol=series.symbol,
            interval=series.interval,
            month=month,
            first_open_time=extent[2],
            last_close_time=extent[3],
        )

    starts = accumulate((count for _, count, *_ in extents), initial=0)
    parts = [rows.slice(start, extent[1]) for start, extent in zip(starts, extents, strict=False)]
    return list(pool.map(write, parts, extents))


def _write_dimension(connection: duckdb.DuckDBPyConnection, settings: Settings, name: str) -> ServedFile:
    rows = connection.sql(f"select * from crypto_analytics.{name} order by all").to_arrow_table()
    return _write_versioned(settings.serving_dir / "crypto_analytics", name, rows, name)


def _write_versioned(folder: Path, name: str, rows: pa.Table, table: str) -> ServedFile:
    sink = pa.BufferOutputStream()
    doubles = [field.name for field in rows.schema if pa.types.is_float64(field.type)]
    rising = [name for name in ("open_time", "close_time", "trades") if name in rows.column_names]
    # Measured over all bars: zstd makes files 6 % smaller that take 45 % longer to write and 35 % longer to read.
    # Footers are read for every question, so they hold the statistics that prune and no more.
    pq.write_table(
        rows,
        sink,
        compression="lz4",
        use_dictionary=[name for name in rows.column_names if name not in doubles + rising],
        column_encoding=dict.fromkeys(doubles, "BYTE_STREAM_SPLIT") | dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
        write_statistics=rising[:2],
        store_schema=False,
        row_group_size=1 << 20,
    )
    content = sink.getvalue()
    version = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"{name}.{version}.parquet"
    if path.exists():
        os.utime(path)  # it may have been superseded and is about to be used again: start its grace period anew
    else:
        write_durably(path, content)
    return ServedFile(table, str(path), rows.num_rows, content.size)


# --- views -------------------------------------------------------------------------------------------------------


def _swap_views(settings: Settings, files: Sequence[ServedFile], environment: Environment | None) -> str:
    """Make a view file over `files` and rename it over the current one. Returns the version's name."""
    version = hashlib.sha256("\n".join(file.path for file in files).encode()).hexdigest()[:16]
    target = settings.serving_dir / VIEW_FILE
    temporary = target.with_name(f".{VIEW_FILE}.{uuid.uuid4().hex}")
    try:
        with duckdb.connect() as connection:
            connection.execute(f"attach {text(str(temporary))} as views (storage_version '{_STORAGE_VERSION}')")
            connection.execute("create schema views.crypto_analytics")
            connection.execute("create schema views.bookkeeping")
            for table in (BARS, *DIMENSIONS, *HEALTH):
                connection.execute(f"create view views.crypto_analytics.{table} as {_select(table, files)}")
            connection.execute(f"create view views.bookkeeping.files as {_files_view(files)}")
            connection.execute(f"create view views.bookkeeping.about as {_about_view(version, environment)}")
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
    years = groupby(sorted(own, key=lambda file: str(file.month)), key=lambda file: int(str(file.month)[:4]))
    return " union all ".join(
        f"select * from {_parquet(list(of_year), _HIVE)} where open_time >= timestamptz '{year}-01-01 00:00:00+00' "
        f"and open_time < timestamptz '{year + 1}-01-01 00:00:00+00'"
        for year, of_year in years
    )


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
    names = [column.strip(' "') for column in _FILE_COLUMNS.split(",")]
    lines = "\n".join(
        "\t".join("" if getattr(file, name) is None else str(getattr(file, name)) for name in names) for file in files
    )
    fields = ", ".join(
        f"nullif(split_part(line, chr(9), {i}), '')::{_FILE_TYPES.get(name, 'varchar')} as \"{name}\""
        for i, name in enumerate(names, 1)
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


@dataclass(frozen=True)
class QueryResult:
    """Names and rows of an answer."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def run_query(settings: Settings, sql: str, limit: int | None = None, parameters: Sequence[object] = ()) -> QueryResult:
    """Run one query of a user against the published version; raises UsageError with what DuckDB says of it.

    Tables can be named without their schema. At most `limit` rows come back.
    """
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
        rows = connection.execute(f"select {_FILE_COLUMNS} from bookkeeping.files").fetchall()
    names = [column.strip(' "') for column in _FILE_COLUMNS.split(",")]
    return [ServedFile(**dict(zip(names, row, strict=True))) for row in rows]


def is_simulated(settings: Settings) -> bool:
    """Whether the data of this home came from the simulated exchange."""
    environment = RawZone(settings.raw_root).environment()
    return environment is not None and environment.source_environment == SIMULATED
