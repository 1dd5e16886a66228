"""A home after `klinehouse backfill`."""

from dataclasses import dataclass

from ingestion.history.month import MonthResult
from ingestion.settings import Settings


@dataclass(frozen=True)
class Backfilled:
    """The home, what the backfill said on the way, and (in its settings) the exchange it came from, still running."""

    settings: Settings
    runs: list[str]
    months: list[MonthResult]
