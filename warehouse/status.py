"""What a home holds: landed series, published series, quarantine."""

from dataclasses import dataclass
from datetime import datetime

from ingestion.klines import Series
from ingestion.provenance import Provenance
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import Settings
from warehouse.served_files import BARS, ServedFile
from warehouse.serving import served_files


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
class Status:
    """Everything `klinehouse status` shows."""

    home: str
    environment: Environment | None
    series: tuple[SeriesStatus, ...]
    quarantined: tuple[dict[str, object], ...]


def status(settings: Settings) -> Status:
    zone = RawZone(settings.raw_root)
    served = [file for file in served_files(settings) if file.table_name == BARS]
    raw = [_raw_status(zone, series) for series in zone.series()]
    published = [_served_status(series, files) for series, files in _by_series(served).items()]
    return Status(str(settings.home), zone.environment(), (*raw, *published), tuple(zone.quarantined()))


def _raw_status(zone: RawZone, series: Series) -> SeriesStatus:
    landed = [zone.describe(file) for file in zone.history_files(series.interval, [series.symbol])]
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
        sum(month.bytes for month in landed),
        len(landed),
        tuple(sorted({source for provenance in provenances for source in provenance.sources})),
    )


def _by_series(files: list[ServedFile]) -> dict[Series, list[ServedFile]]:
    found: dict[Series, list[ServedFile]] = {}
    for file in files:
        found.setdefault(Series(file.symbol or "", file.interval or ""), []).append(file)
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
