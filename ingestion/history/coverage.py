"""What has landed, month by month, read from the footers of files alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ingestion.grid import Window
from ingestion.history.plan import unasked
from ingestion.klines import Month, Series, months_between
from ingestion.provenance import Provenance
from ingestion.raw_zone import RawZone
from ingestion.stream_zone import StreamZone


class State(StrEnum):
    """Of one month of one series; the first that is true, in this order."""

    MISSING = "missing"
    STREAM = "by stream only"
    NOT_LISTED = "not listed"
    QUARANTINED = "quarantined"
    HOLE = "hole"
    REVISED = "revised upstream"
    OUTAGE = "exchange outage"
    FULL = "full"


@dataclass(frozen=True)
class Cell:
    """One month: its state, the bars that history has, the windows for which a source is still to be asked, and the
    end of the newest bar that came by stream and that history has not taken over."""

    month: Month
    state: State
    rows: int = 0
    unasked: tuple[Window, ...] = ()
    streamed_until: datetime | None = None


@dataclass(frozen=True)
class SeriesCoverage:
    """One line of the heat strip."""

    series: Series
    cells: tuple[Cell, ...]

    @property
    def missing(self) -> list[Month]:
        """The months that healing would ask a source for."""
        return [cell.month for cell in self.cells if cell.state in _TO_ASK or cell.unasked]


_TO_ASK = (State.MISSING, State.STREAM, State.HOLE)


def coverage(
    zone: RawZone, series: Iterable[Series], start: Month, now: datetime | None = None
) -> list[SeriesCoverage]:
    """Every month of each series from `start` to the running one."""
    today = (now or datetime.now(UTC)).date()
    months = months_between(start.first_day, Month.containing(today).next.first_day)
    quarantined = zone.quarantined_names()
    streamed = _streamed_until(StreamZone(zone.root_url))
    return [_of_series(zone, one, months, quarantined, streamed) for one in series]


def _streamed_until(zone: StreamZone) -> dict[tuple[Series, Month], datetime]:
    found: dict[tuple[Series, Month], datetime] = {}
    for file, extents in zone.survey(zone.extents):
        for series, window in extents.items():
            key = series, Month.containing(file.day)
            found[key] = max(found.get(key, window.end), window.end)
    return found


def _of_series(
    zone: RawZone,
    series: Series,
    months: Sequence[Month],
    quarantined: set[str],
    streamed: Mapping[tuple[Series, Month], datetime],
) -> SeriesCoverage:
    first = zone.first_open_time(series)
    landed = {file.month for file in zone.history_files(series.interval, [series.symbol], months)}
    origins = dict(zip(landed, zone.each(lambda month: zone.provenance(series, month), landed), strict=True))
    cells = []
    for month in months:
        name = f"{series.symbol}-{series.interval.replace('M', 'mo')}-{month}"
        is_bad = any(one.startswith(name) for one in quarantined)
        cells.append(_cell(month, origins.get(month), first, streamed.get((series, month)), is_bad=is_bad))
    return SeriesCoverage(series, tuple(cells))


def _cell(
    month: Month, landed: Provenance | None, first: datetime | None, streamed: datetime | None, *, is_bad: bool
) -> Cell:
    if landed is None:
        return Cell(month, _state_without_history(month, first, streamed, is_bad=is_bad), streamed_until=streamed)
    open_windows = tuple(unasked(landed))
    return Cell(month, _state(landed, open_windows, is_bad=is_bad), landed.rows, open_windows, streamed)


def _state_without_history(month: Month, first: datetime | None, streamed: datetime | None, *, is_bad: bool) -> State:
    if is_bad:
        return State.QUARANTINED
    if streamed is not None:
        return State.STREAM
    return State.NOT_LISTED if first is not None and month.end <= first else State.MISSING


def _state(landed: Provenance, open_windows: Sequence[Window], *, is_bad: bool) -> State:
    if landed.rows == 0 and not open_windows:
        return State.NOT_LISTED
    if is_bad:
        return State.QUARANTINED
    if open_windows:
        return State.HOLE
    if landed.replaced:
        return State.REVISED
    return State.OUTAGE if landed.holes else State.FULL
