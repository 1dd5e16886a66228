"""What dbt sees of the raw zone on DuckDB: the schema `crypto_raw`.

    klines               the landed rows of the run's window: a view over exactly those Parquet files, so a run on one
                         month, or on the bars that have just closed, costs the same however much has landed
    run_symbols          the symbols that the run is about
    klines_coverage      what each answer of the exchange spoke of, for all months that the warehouse was built from
    klines_differences   where sources disagreed, in the run's window
    symbols              what the exchange trades, each time that it changed

and, in `bookkeeping.built`, which version of each landed month the warehouse was built from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from ingestion.errors import ConfigurationError
from ingestion.grid import Window, instant, micros
from ingestion.klines import DAY_MICROS, INSTANT, Month, Series, month_window
from ingestion.microbatch import Stretch
from ingestion.provenance import STREAM
from ingestion.raw_zone import HistoryFile, RawZone
from ingestion.stream_zone import StreamZone
from warehouse.engine import registered, text

# Which version of each landed month of the base interval, by symbol.
Versions = dict[tuple[str, Month], str]

_EMPTY_KLINES = """
    select null::varchar as symbol, null::varchar as "interval", null::timestamptz as open_time,
        null::timestamptz as close_time, null::decimal(28, 8) as open, null::decimal(28, 8) as high,
        null::decimal(28, 8) as low, null::decimal(28, 8) as close, null::decimal(28, 8) as volume,
        null::decimal(28, 8) as quote_volume, null::bigint as trades, null::decimal(28, 8) as taker_buy_base_volume,
        null::decimal(28, 8) as taker_buy_quote_volume, null::varchar as source, null::timestamptz as ingested_at
    where false
"""


_EMPTY_DIFFERENCES = """
    select null::varchar as symbol, null::varchar as "interval", null::timestamptz as open_time,
        null::varchar as field, null::varchar as kept_source, null::varchar as kept_value,
        null::varchar as other_source, null::varchar as other_value, null::timestamptz as found_at
    where false
"""
_EMPTY_SYMBOLS = """
    select null::varchar as symbol, null::varchar as status, null::varchar as base_asset,
        null::varchar as quote_asset, null::decimal(28, 8) as tick_size, null::decimal(28, 8) as lot_size,
        null::decimal(28, 8) as min_notional, null::timestamptz as fetched_at
    where false
"""


def prepare(connection: duckdb.DuckDBPyConnection, zone: RawZone, interval: str, months: Sequence[Month]) -> Versions:
    """Point the raw sources of dbt at what has landed of `months`, and make the schemas that a run writes to.

    Returns which versions those are, for `note_built` after the run.
    """
    files = zone.history_files(interval=interval, months=months)
    streamed = StreamZone(zone.root_url)
    stream_files = streamed.files(Window(months[0].start, months[-1].end))
    _refuse_other_base(connection, interval)
    _make_tables(connection)
    differences = zone.difference_files(interval, months)
    paths = [*(file.path for file in files), *(file.path for file in stream_files)]
    _view(connection, "klines", paths, _EMPTY_KLINES)
    _view(connection, "klines_differences", (file.path for file in differences), _EMPTY_DIFFERENCES)
    extents = streamed.each(streamed.extents, stream_files)
    landed = {file.series.symbol for file in files} | {series.symbol for found in extents for series in found}
    _replace_run_symbols(connection, landed, and_known=True)
    _replace_coverage(connection, zone, interval, months, files)
    _cover_stream(connection, interval, extents)
    prepare_symbols(connection, zone)
    return versions_of(files, differences)


def prepare_live(
    connection: duckdb.DuckDBPyConnection, zone: RawZone, streamed: StreamZone, interval: str, stretch: Stretch
) -> None:
    """Point `klines` at what is needed for bars that came by stream: the whole UTC days that they touch, of their
    symbols alone."""
    _refuse_other_base(connection, interval)
    _make_tables(connection)
    days = whole_days(stretch.window)
    stream_files = streamed.files(days)
    series = [Series(symbol, interval) for symbol in stretch.symbols]
    history = zone.history_of(series, month_window(days), covering=days.start)
    _view(connection, "klines", [*history, *(file.path for file in stream_files)], _EMPTY_KLINES)
    _replace_run_symbols(connection, stretch.symbols)
    _cover_stream(connection, interval, streamed.each(streamed.extents, stream_files))


def has_tables(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a run has made the main table; a warehouse may be deleted at any time, and is then built again."""
    found = connection.execute(
        "select count(*) from duckdb_tables() where schema_name = 'crypto_analytics' and "
        "table_name = 'market_data_unified'"
    ).fetchone()
    return found is not None and found[0] > 0


def widened(connection: duckdb.DuckDBPyConnection, interval: str, stretch: Stretch) -> Stretch:
    """A stretch from where its symbols were told of before: bars of an outage in between may be over only now."""
    symbols = ", ".join(text(symbol) for symbol in stretch.symbols)
    found = connection.execute(
        f"""select min(covered_until) from (
            select max(covered_until) as covered_until from crypto_raw.klines_coverage
            where "interval" = ? and symbol in ({symbols}) group by symbol)""",
        [interval],
    ).fetchone()
    told_until = found[0] if found else None
    if told_until is None or told_until >= stretch.window.start:
        return stretch
    return replace(stretch, window=Window(told_until.astimezone(UTC), stretch.window.end))


def whole_days(window: Window) -> Window:
    """The UTC days that a window touches: no derived bar is longer."""
    start, end = micros(window.start), micros(window.end)
    return Window(instant(start // DAY_MICROS * DAY_MICROS), instant(-(-end // DAY_MICROS) * DAY_MICROS))


def _make_tables(connection: duckdb.DuckDBPyConnection) -> None:
    for schema in ("crypto_raw", "crypto_analytics", "bookkeeping"):
        connection.execute(f"create schema if not exists {schema}")
    connection.execute(
        """create table if not exists bookkeeping.unpublished (
            symbol varchar not null, "interval" varchar not null, month_start timestamptz not null,
            changed_from timestamptz not null, invocation varchar
        )"""
    )
    connection.execute(
        """create table if not exists crypto_raw.klines_coverage (
            symbol varchar not null, "interval" varchar not null, month_start timestamptz not null,
            source varchar not null, covered_from timestamptz not null, covered_until timestamptz not null
        )"""
    )
    connection.execute("create table if not exists crypto_raw.run_symbols (symbol varchar not null)")


def _replace_run_symbols(
    connection: duckdb.DuckDBPyConnection, symbols: Iterable[str], *, and_known: bool = False
) -> None:
    """`and_known` adds the symbols that the warehouse was built from before: their bars may have gone."""
    listed = ", ".join(text(symbol) for symbol in sorted(symbols)) or "null"
    known = "union select symbol from crypto_raw.klines_coverage" if and_known else ""
    connection.execute("truncate crypto_raw.run_symbols")
    connection.execute(
        f"insert into crypto_raw.run_symbols select symbol from (select unnest([{listed}]) as symbol {known}) "
        "where symbol is not null"
    )


def _cover_stream(
    connection: duckdb.DuckDBPyConnection, interval: str, extents: Iterable[Mapping[Series, Window]]
) -> None:
    """Note until when the stream has told of each symbol; what is known already only grows."""
    told: dict[tuple[str, datetime], list[Window]] = {}
    for found in extents:
        for series, window in found.items():
            if series.interval == interval:
                month = Month.containing(window.start.date())
                told.setdefault((series.symbol, month.start), []).append(window)
    if not told:
        return
    with registered(connection, "told", _as_table(told)):
        connection.execute(
            f"""merge into crypto_raw.klines_coverage as known
            using told
            on known.symbol = told.symbol and known."interval" = {text(interval)} and known.source = '{STREAM}'
                and known.month_start = told.month_start
            when matched then update set covered_from = least(known.covered_from, told.covered_from),
                covered_until = greatest(known.covered_until, told.covered_until)
            when not matched then insert values (
                told.symbol, {text(interval)}, told.month_start, '{STREAM}', told.covered_from, told.covered_until)"""
        )


def _as_table(told: Mapping[tuple[str, datetime], Sequence[Window]]) -> pa.Table:
    instants = {
        "month_start": [month for _, month in told],
        "covered_from": [min(windows).start for windows in told.values()],
        "covered_until": [max(window.end for window in windows) for windows in told.values()],
    }
    columns = {
        name: pa.array([micros(at) for at in found], pa.int64()).cast(INSTANT) for name, found in instants.items()
    }
    return pa.table({"symbol": [symbol for symbol, _ in told], **columns})


def landed_versions(zone: RawZone, interval: str) -> Versions:
    """The version of every landed month: of its rows and of what sources disagreed about."""
    return versions_of(zone.history_files(interval), zone.difference_files(interval))


def versions_of(files: Sequence[HistoryFile], differences: Sequence[HistoryFile] = ()) -> Versions:
    """The version of each file, and of what sources disagreed about in its month."""
    told = {(file.series.symbol, file.month): file.version for file in differences}
    return {
        (file.series.symbol, file.month): f"{file.version} {told.get((file.series.symbol, file.month), '')}"
        for file in files
    }


def built_versions(connection: duckdb.DuckDBPyConnection) -> Versions:
    """The versions that the warehouse was built from; none before the first run."""
    try:
        rows = connection.execute("select symbol, month_start, version from bookkeeping.built").fetchall()
    except duckdb.CatalogException:
        return {}
    return {(symbol, Month.containing(start.astimezone(UTC).date())): version for symbol, start, version in rows}


def note_built(connection: duckdb.DuckDBPyConnection, months: Sequence[Month], versions: Versions) -> None:
    """Note that a run over `months` has ended, and what it read."""
    connection.execute("begin")
    connection.execute(
        """create table if not exists bookkeeping.built
        (symbol varchar not null, month_start timestamptz not null, version varchar not null)"""
    )
    connection.execute(
        "delete from bookkeeping.built where month_start >= ? and month_start < ?", [months[0].start, months[-1].end]
    )
    rows = [(symbol, month.start, version) for (symbol, month), version in versions.items()]
    if rows:
        connection.executemany("insert into bookkeeping.built values (?, ?, ?)", rows)
    connection.execute("commit")


def prepare_symbols(connection: duckdb.DuckDBPyConnection, zone: RawZone) -> None:
    """Point the source of symbols at what is known of them."""
    connection.execute("create schema if not exists crypto_raw")
    _view(connection, "symbols", zone.symbol_files(), _EMPTY_SYMBOLS)


def _refuse_other_base(connection: duckdb.DuckDBPyConnection, interval: str) -> None:
    """One warehouse grows from one interval: bars rolled up from two would meet in the same rows."""
    try:
        built = connection.execute('select distinct "interval" from crypto_raw.klines_coverage').fetchall()
    except duckdb.CatalogException:
        return
    for (base,) in built:
        if base != interval:
            raise ConfigurationError(
                f"This home's warehouse is built from {base}, not from {interval}.",
                f"Set KLINEHOUSE_INTERVAL={base}, or KLINEHOUSE_HOME to another folder.",
            )


def _view(connection: duckdb.DuckDBPyConnection, name: str, paths: Iterable[str], empty: str) -> None:
    listed = ", ".join(text(path) for path in paths)
    rows = f"select * from read_parquet([{listed}], hive_partitioning = false)" if listed else empty
    connection.execute(f"create or replace view crypto_raw.{name} as {rows}")


def _replace_coverage(
    connection: duckdb.DuckDBPyConnection,
    zone: RawZone,
    interval: str,
    months: Sequence[Month],
    files: Sequence[HistoryFile],
) -> None:
    """Take over what is known of `months`; what is known of the others stays."""
    rows: list[tuple[str, str, datetime, str, datetime, datetime]] = []
    landed = zone.each(lambda file: zone.provenance(file.series, file.month), files)
    for file, provenance in zip(files, landed, strict=True):
        for answer in provenance.files if provenance else ():
            key = (file.series.symbol, file.series.interval, file.month.start)
            rows.append((*key, answer.source, answer.start, answer.end))
    connection.execute(
        'delete from crypto_raw.klines_coverage where "interval" = ? and month_start >= ? and month_start < ?',
        [interval, months[0].start, months[-1].end],
    )
    if rows:
        connection.executemany("insert into crypto_raw.klines_coverage values (?, ?, ?, ?, ?, ?)", rows)
