"""Where the collector begins with a series that it has never collected: where history ends."""

from collections.abc import Sequence

from ingestion.collector.spool import Spool
from ingestion.grid import micros
from ingestion.klines import Series, grid_micros
from ingestion.raw_zone import RawZone


def first_opens(zone: RawZone, series: Sequence[Series], spool: Spool) -> dict[Series, int]:
    """When the first bar opens that history does not have, in microseconds, per series that is new to the spool.

    A series without history is left out: it begins with the bar that is open now.
    """
    found = {}
    for one in series:
        grid = grid_micros(one.interval)
        if spool.watermark(one) is None and grid and (files := zone.history_files(one.interval, [one.symbol])):
            provenance = zone.provenance(one, files[-1].month)
            if provenance is not None:
                found[one] = micros(provenance.covered_until) // grid * grid
    return found
