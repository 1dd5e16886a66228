"""What a home holds: landed series, published series, what came live, quarantine."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from ingestion.bus.open import open_bus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, MICROBATCH
from ingestion.errors import BusUnavailable
from ingestion.klines import Series
from ingestion.provenance import Provenance
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse.served_files import BARS, ServedFile
from warehouse.serving import run_query, served_files


@dataclass(frozen=True)
class SeriesStatus:
    """One series in one layer (`raw` or `serving`): rows, extent, size on disk, and its sources."""

    layer: str
    symbol: str
    interval: str
    rows: int
    first_open_time: datetime | None
    last_close_time: datetime | None
    bytes: int
    files: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class LiveStatus:
    """What of one series came live and history has not taken over: bars, the files that have some, the end of the
    newest bar, and when the collector had the one that it received last."""

    symbol: str
    interval: str
    bars: int
    files: int
    last_close_time: datetime
    last_received_at: datetime


@dataclass(frozen=True)
class BusStatus:
    """What waits for the streaming run, since when, and the dead letters; or why nobody knows."""

    waiting: int | None = None
    waiting_since: datetime | None = None
    dead_letters: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Status:
    """Everything `klinehouse status` shows. `bus` is None where there has never been one."""

    home: str
    environment: Environment | None
    series: tuple[SeriesStatus, ...]
    live: tuple[LiveStatus, ...]
    bus: BusStatus | None
    quarantined: tuple[dict[str, object], ...]


def status(settings: Settings) -> Status:
    zone = RawZone(settings.raw_root)
    published = _PUBLISHED[settings.target](settings)
    raw = [_raw_status(zone, series) for series in zone.series()]
    return Status(
        str(settings.home),
        zone.environment(),
        (*raw, *published),
        _live_status(StreamZone(settings.raw_root)),
        _bus_status(settings),
        tuple(zone.quarantined()),
    )


def _published_files(settings: Settings) -> list[SeriesStatus]:
    served = [file for file in served_files(settings) if file.table_name == BARS]
    return [_served_status(series, files) for series, files in _by_series(served).items()]


def _published_tables(settings: Settings) -> list[SeriesStatus]:
    """What dim_symbols tells of the base interval: asking the bars themselves would read all of them."""
    columns = "symbol, base_interval, bars, first_open_time, last_close_time"
    rows = run_query(settings, f"select {columns} from dim_symbols order by symbol").rows
    return [
        SeriesStatus("bigquery", symbol, interval, bars, first, last, 0, 0, ())
        for symbol, interval, bars, first, last in rows
    ]


_PUBLISHED = {"duckdb": _published_files, "bigquery": _published_tables}


def _raw_status(zone: RawZone, series: Series) -> SeriesStatus:
    files = zone.history_files(series.interval, [series.symbol])
    landed = zone.each(zone.describe, files)
    provenances: list[Provenance] = [month.provenance for month in landed]
    opens = [month.first_open_time for month in landed if month.first_open_time]
    closes = [month.last_close_time for month in landed if month.last_close_time]
    return SeriesStatus(
        "raw",
        series.symbol,
        series.interval,
        sum(provenance.rows for provenance in provenances),
        min(opens, default=None),
        max(closes, default=None),
        sum(file.bytes for file in files),
        len(landed),
        tuple(sorted({source for provenance in provenances for source in provenance.sources})),
    )


def _live_status(zone: StreamZone) -> tuple[LiveStatus, ...]:
    columns = ["symbol", "interval", "open_time", "close_time", "ingested_at"]
    told = [rows for _, rows in zone.survey(lambda file: zone.read(file).select(columns))]
    if not told:
        return ()
    numbered = [rows.append_column("file", pa.array([at] * len(rows), pa.int32())) for at, rows in enumerate(told)]
    found = (
        pa.concat_tables(numbered)
        .group_by(["symbol", "interval"], use_threads=False)
        .aggregate(
            [
                *((name, "count_distinct") for name in ("open_time", "file")),
                *((name, "max") for name in ("close_time", "ingested_at")),
            ]
        )
    )
    names = ["symbol", "interval", "open_time_count_distinct", "file_count_distinct"]
    rows = found.select([*names, "close_time_max", "ingested_at_max"]).sort_by([(name, "ascending") for name in names])
    return tuple(LiveStatus(*row.values()) for row in rows.to_pylist())


def _bus_status(settings: Settings) -> BusStatus | None:
    if settings.bus == "local" and not settings.bus_path.exists():
        return None
    try:
        with open_bus(settings) as bus:
            waiting, dead = bus.backlog(MICROBATCH), bus.backlog(DEAD_LETTERS_SUBSCRIPTION)
    except BusUnavailable as error:
        return BusStatus(problem=str(error))
    return BusStatus(waiting.messages, waiting.oldest, dead.messages)


def _by_series(files: list[ServedFile]) -> dict[Series, list[ServedFile]]:
    found: dict[Series, list[ServedFile]] = {}
    for file in files:
        found.setdefault(file.series, []).append(file)
    return found


def _served_status(series: Series, files: list[ServedFile]) -> SeriesStatus:
    return SeriesStatus(
        "serving",
        series.symbol,
        series.interval,
        sum(file.rows for file in files),
        min((file.first_open_time for file in files if file.first_open_time), default=None),
        max((file.last_close_time for file in files if file.last_close_time), default=None),
        sum(file.bytes for file in files),
        len(files),
        ("warehouse",),
    )
