"""What dbt sees of the raw zone on BigQuery: `crypto_raw` brought up to date before a run.

A month of a series is loaded when the version of its file is not the one that was loaded; so a run costs what is new,
however much has landed. See `tables` for what there is, and `load` for how rows are replaced.
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

from ingestion.errors import ConfigurationError
from ingestion.grid import Window, micros
from ingestion.klines import INTERVAL_MICROS, KLINE_SCHEMA, Month
from ingestion.raw_zone import HistoryFile, RawZone
from ingestion.stream_zone import StreamFile, StreamZone
from warehouse.bigquery.client import RAW, BigQuery
from warehouse.bigquery.load import (
    CHANGED_MEANWHILE,
    FILES_PER_LOAD,
    Superseded,
    in_one_transaction,
    load_files,
    load_rows,
)
from warehouse.bigquery.tables import COVERAGE_SCHEMA, make_tables
from warehouse.engine import text
from warehouse.raw_source import Versions, versions_of

_ATTEMPTS = 6
_COLUMNS = ", ".join(f"`{name}`" for name in KLINE_SCHEMA.names)


def prepare(warehouse: BigQuery, zone: RawZone, interval: str, months: Sequence[Month]) -> Versions:
    """Load what has changed of `months`, and note what the run is about. Returns the versions that are loaded now.

    Raises ConfigurationError where the raw zone is no bucket, or the warehouse grew from another interval.
    """
    _require_bucket(zone)
    make_tables(warehouse)
    refuse_other_base(warehouse, interval)
    window = _window(months)
    files = load_history(warehouse, zone, interval, months)
    _load_stream(warehouse, StreamZone(zone.root_url), window)
    _replace_differences(warehouse, zone, interval, months)
    prepare_symbols(warehouse, zone)
    # Also those that the months were built from before: their files may have gone.
    built = _versions_in(warehouse, "klines_built", interval, _within(window, "month_start"))
    about(warehouse, interval, window, {file.series.symbol for file in files} | {symbol for symbol, _ in built})
    return versions_of(files, zone.difference_files(interval, months))


def _require_bucket(zone: RawZone) -> None:
    if zone.protocol not in ("gs", "gcs"):
        raise ConfigurationError(
            f"BigQuery cannot load from {zone.root_url}.", "Set KLINEHOUSE_RAW_URL to gs://BUCKET/FOLDER."
        )


def about(warehouse: BigQuery, interval: str, window: Window, symbols: Iterable[str]) -> None:
    """Note what the next run is about: these symbols and those that streamed in `window`."""
    streamed = f"from {RAW}.klines_stream where {_within(window)} and `interval` = @interval"
    _cover_stream(warehouse, interval, streamed)
    in_one_transaction(
        warehouse,
        [
            f"delete from {RAW}.run_symbols where true",
            f"insert into {RAW}.run_symbols (symbol) select symbol from unnest(@symbols) as symbol "
            f"union distinct select symbol {streamed}",
        ],
        scope(interval, symbols),
        "symbols of the run",
    )


def scope(interval: str, symbols: Iterable[str]) -> list[ArrayQueryParameter | ScalarQueryParameter]:
    """The parameters @interval and @symbols."""
    return [
        ScalarQueryParameter("interval", "STRING", interval),
        ArrayQueryParameter("symbols", "STRING", sorted(symbols)),
    ]


def _within(window: Window, column: str = "open_time") -> str:
    # Literals: what is read can be seen in the statement.
    return f"{column} >= timestamp '{window.start}' and {column} < timestamp '{window.end}'"


# --- history -----------------------------------------------------------------------------------------------------


def load_history(warehouse: BigQuery, zone: RawZone, interval: str, months: Sequence[Month]) -> list[HistoryFile]:
    """Load what has changed of `months`; returns all of their files, as they are loaded now. Looks again when another
    process loaded the same months in between."""
    for attempt in range(_ATTEMPTS):
        try:
            return _load_changed(warehouse, zone, interval, months)
        except Superseded:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.5, 1) * 2**attempt)  # noqa: S311 - not for secrets
    raise AssertionError


def _load_changed(warehouse: BigQuery, zone: RawZone, interval: str, months: Sequence[Month]) -> list[HistoryFile]:
    # In this order: a file that changes after it was listed is noticed, because who loads it changes what is loaded.
    loaded = loaded_versions(warehouse, interval, months)
    files = zone.history_files(interval=interval, months=months)
    landed = versions_of(files)
    by_month: dict[Month, list[HistoryFile]] = {month: [] for _, month in loaded.keys() - landed.keys()}
    for file in files:
        if loaded.get((file.series.symbol, file.month)) != landed[file.series.symbol, file.month]:
            by_month.setdefault(file.month, []).append(file)
    for batch in _batches(by_month):
        seen = {key: version for key, version in loaded.items() if key[1] in batch}
        gone = [key for key in seen if key not in landed]
        _replace(warehouse, zone, interval, [file for month in batch for file in by_month[month]], gone, seen)
    return files


def _batches(by_month: dict[Month, list[HistoryFile]]) -> Iterator[list[Month]]:
    """Months whose files go into one load."""
    batch: list[Month] = []
    size = 0
    for month in sorted(by_month):
        if batch and size + len(by_month[month]) > FILES_PER_LOAD:
            yield batch
            batch, size = [], 0
        batch.append(month)
        size += len(by_month[month])
    if batch:
        yield batch


def _replace(
    warehouse: BigQuery,
    zone: RawZone,
    interval: str,
    files: Sequence[HistoryFile],
    gone: Sequence[tuple[str, Month]],
    seen: Versions,
) -> None:
    """Put the rows of `files` in the place of what was loaded of the same months, and take out what is `gone`. `seen`
    is all that was loaded of the months; raises Superseded when that is not so any more."""
    versions = versions_of(files)
    months = sorted({month for _, month in (*versions, *gone, *seen)})
    window = _window(months)
    keys = "concat(symbol, ' ', cast(unix_seconds(%s) as string)) in unnest(@keys)"
    of_month, of_bar = keys % "month_start", keys % "timestamp_trunc(open_time, month)"
    own = "`interval` = @interval"
    statements = [
        # Whoever loaded any of these months meanwhile may have had newer files than we have.
        f"select if(coalesce(string_agg(concat(symbol, ' ', cast(unix_seconds(month_start) as string), ' ', version), "
        f"'\\n' order by symbol, month_start), '') = @seen, 0, error('{CHANGED_MEANWHILE}')) "
        f"from {RAW}.klines_loaded where {own} and {_within(window, 'month_start')}",
        f"delete from {RAW}.klines where {_within(window)} and {own} and {of_bar}",
        f"delete from {RAW}.klines_coverage where {own} and source != 'stream' and {of_month}",
        f"delete from {RAW}.klines_loaded where {own} and {of_month}",
    ]
    if files:
        rows = load_files(warehouse, [(file.path, file.version) for file in files], KLINE_SCHEMA)
        coverage = load_rows(warehouse, _coverage(zone, files))
        statements += [
            f"insert into {RAW}.klines ({_COLUMNS}) select {_COLUMNS} from {RAW}.{rows}",
            f"insert into {RAW}.klines_coverage select * from {RAW}.{coverage}",
            _INSERT_LINES.format(table="klines_loaded"),
        ]
    parameters = [
        ScalarQueryParameter("interval", "STRING", interval),
        ScalarQueryParameter("seen", "STRING", "\n".join(_told(key, version) for key, version in sorted(seen.items()))),
        ArrayQueryParameter("keys", "STRING", [_told(key) for key in (*versions, *gone)]),
        _lines(versions),
    ]
    in_one_transaction(warehouse, statements, parameters, f"load of {months[0]} to {months[-1]}")


_INSERT_LINES = (
    f"insert into {RAW}.{{table}} (symbol, `interval`, month_start, version) "
    "select split(line, '\\t')[offset(0)], @interval, "
    "timestamp_seconds(cast(split(line, '\\t')[offset(1)] as int64)), split(line, '\\t')[offset(2)] "
    "from unnest(@lines) as line"
)


def _lines(versions: Versions) -> ArrayQueryParameter:
    lines = [f"{symbol}\t{_seconds(month)}\t{version}" for (symbol, month), version in versions.items()]
    return ArrayQueryParameter("lines", "STRING", lines)


def _told(key: tuple[str, Month], *more: str) -> str:
    return " ".join([key[0], str(_seconds(key[1])), *more])


def _seconds(month: Month) -> int:
    return micros(month.start) // 1_000_000


def _coverage(zone: RawZone, files: Sequence[HistoryFile]) -> pa.Table:
    """What each answer of the exchange spoke of that went into these files, in COVERAGE_SCHEMA."""
    origins = zone.each(lambda file: zone.provenance(file.series, file.month), files)
    rows = [
        {
            "symbol": file.series.symbol,
            "interval": file.series.interval,
            "month_start": file.month.start,
            "source": answer.source,
            "covered_from": answer.start,
            "covered_until": answer.end,
        }
        for file, origin in zip(files, origins, strict=True)
        for answer in (origin.files if origin else ())
    ]
    return pa.Table.from_pylist(rows, schema=COVERAGE_SCHEMA)


def loaded_versions(warehouse: BigQuery, interval: str, months: Sequence[Month]) -> Versions:
    """The version of each month's file that is loaded, by symbol."""
    return _versions_in(warehouse, "klines_loaded", interval, _within(_window(months), "month_start"))


def built_versions(warehouse: BigQuery, interval: str) -> Versions:
    """The versions that `crypto_analytics` was built from."""
    make_tables(warehouse)
    return _versions_in(warehouse, "klines_built", interval, "true")


def _versions_in(warehouse: BigQuery, table: str, interval: str, where: str) -> Versions:
    rows = warehouse.run(
        f"select symbol, month_start, version from {RAW}.{table} where `interval` = @interval and {where}",
        [ScalarQueryParameter("interval", "STRING", interval)],
        purpose="loaded versions",
    )
    return {(symbol, Month.containing(start.date())): version for symbol, start, version in rows}


def note_built(warehouse: BigQuery, interval: str, months: Sequence[Month], versions: Versions) -> None:
    """Note that a run over `months` has ended, and what it read."""
    parameters = [ScalarQueryParameter("interval", "STRING", interval), _lines(versions)]
    statements = [
        f"delete from {RAW}.klines_built where `interval` = @interval and {_within(_window(months), 'month_start')}",
        _INSERT_LINES.format(table="klines_built"),
    ]
    in_one_transaction(warehouse, statements, parameters, "built versions")


def _window(months: Sequence[Month]) -> Window:
    return Window(months[0].start, months[-1].end)


def refuse_other_base(warehouse: BigQuery, interval: str) -> None:
    """One warehouse grows from one interval."""
    for (base,) in warehouse.run(f"select distinct `interval` from {RAW}.klines_loaded", purpose="base interval"):
        if base != interval:
            raise ConfigurationError(
                f"The warehouse in {warehouse.project} is built from {base}, not from {interval}.",
                f"Set KLINEHOUSE_INTERVAL={base}, or KLINEHOUSE_BIGQUERY_PROJECT to another project.",
            )


# --- the stream --------------------------------------------------------------------------------------------------


def _load_stream(warehouse: BigQuery, streamed: StreamZone, window: Window) -> None:
    """Add bars of the raw zone that were never appended: of a warehouse made anew, or of a process that was killed."""
    files = streamed.files(window)
    for first in range(0, len(files), FILES_PER_LOAD):
        _add_streamed(warehouse, files[first : first + FILES_PER_LOAD])


def _add_streamed(warehouse: BigQuery, files: Sequence[StreamFile]) -> None:
    staged = load_files(warehouse, [(file.path, file.name) for file in files], KLINE_SCHEMA)
    days = Window(files[0].window.start, files[-1].window.end)
    same = " and ".join(f"known.`{name}` = landed.`{name}`" for name in ("symbol", "interval", "open_time", "source"))
    warehouse.run(
        f"insert into {RAW}.klines_stream ({_COLUMNS}) select {_COLUMNS} from {RAW}.{staged} as landed "
        "where not exists "
        f"(select 1 from {RAW}.klines_stream as known where {_within(days, 'known.open_time')} and {same})",
        purpose="load of streamed bars",
    )


def _cover_stream(warehouse: BigQuery, interval: str, streamed: str) -> None:
    """Note until when the stream has told of each symbol; what is known already only grows."""
    length = INTERVAL_MICROS[interval]
    warehouse.run(
        f"""merge into {RAW}.klines_coverage as known
        using (
            select
                symbol,
                timestamp_trunc(open_time, month) as month_start,
                min(open_time) as covered_from,
                timestamp_add(max(open_time), interval {length} microsecond) as covered_until
            {streamed}
            group by 1, 2
        ) as told
        on known.symbol = told.symbol and known.`interval` = @interval and known.source = 'stream'
            and known.month_start = told.month_start
        when matched then update set covered_from = least(known.covered_from, told.covered_from),
            covered_until = greatest(known.covered_until, told.covered_until)
        when not matched then insert (symbol, `interval`, month_start, source, covered_from, covered_until)
            values (told.symbol, @interval, told.month_start, 'stream', told.covered_from, told.covered_until)""",
        [ScalarQueryParameter("interval", "STRING", interval)],
        purpose="coverage of the stream",
    )


# --- small tables ------------------------------------------------------------------------------------------------


def _replace_differences(warehouse: BigQuery, zone: RawZone, interval: str, months: Sequence[Month]) -> None:
    files = zone.difference_files(interval, months)
    found = zone.each(lambda file: zone.read_differences(file.series, file.month), files)
    window = _window(months)
    statements = [f"delete from {RAW}.klines_differences where `interval` = {text(interval)} and {_within(window)}"]
    if found:
        staged = load_rows(warehouse, pa.concat_tables(found))
        statements.append(f"insert into {RAW}.klines_differences select * from {RAW}.{staged}")
    in_one_transaction(warehouse, statements, [], "differences between sources")


def prepare_symbols(warehouse: BigQuery, zone: RawZone) -> None:
    """Take over what is known of the exchange's symbols, if there is news."""
    make_tables(warehouse)
    known = warehouse.run(f"select count(distinct fetched_at) from {RAW}.symbols", purpose="known symbols")[0][0]
    tables = zone.all_symbols()
    if len(tables) == known:
        return
    staged = load_rows(warehouse, pa.concat_tables(tables))
    in_one_transaction(
        warehouse,
        [f"delete from {RAW}.symbols where true", f"insert into {RAW}.symbols select * from {RAW}.{staged}"],
        [],
        "symbols of the exchange",
    )
