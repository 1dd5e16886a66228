"""Where the collector begins with a series that it has never collected: where history ends."""

from collections.abc import Sequence
from functools import partial

from ingestion.collector.spool import Spool
from ingestion.grid import micros
from ingestion.klines import Series, grid_micros
from ingestion.raw_zone import RawZone


def first_opens(zone: RawZone, series: Sequence[Series], spool: Spool) -> dict[Series, int]:
    """When the first bar opens that history does not have, in microseconds, per series that is new to the spool.

    A series without history is left out: it begins with the bar that is open now.
    """
    new = [one for one in series if spool.watermark(one) is None and grid_micros(one.interval)]
    ends = zip(new, zone.each(partial(_history_end, zone), new), strict=True)
    return {one: end for one, end in ends if end is not None}


def _history_end(zone: RawZone, series: Series) -> int | None:
    grid = grid_micros(series.interval)
    files = zone.history_files(series.interval, [series.symbol])
    landed = zone.provenance(series, files[-1].month) if files else None
    return micros(landed.covered_until) // grid * grid if landed and grid else None
