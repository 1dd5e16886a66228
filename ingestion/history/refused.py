"""What a run finds in quarantine, and what it puts there."""

import threading
from collections.abc import Mapping
from typing import Any

from ingestion.klines import Series
from ingestion.raw_zone import RawZone, refused_prefix


class Refused:
    """The quarantine of one raw zone, listed once for a run: nearly all months have nothing there. Safe to share
    between threads.

    What another process puts there meanwhile is not seen: such a file is fetched again.
    """

    def __init__(self, zone: RawZone) -> None:
        self._zone = zone
        self._lock = threading.Lock()
        self._names: set[str] | None = None

    def note(self, name: str) -> dict[str, Any] | None:
        """The note of a refused file; None when it is not in quarantine."""
        return self._zone.quarantine_note(name) if self._has(name) else None

    def keep(self, name: str, content: bytes, note: Mapping[str, object]) -> str:
        """Put a refused file into quarantine; returns where."""
        with self._lock:
            self._listed().add(name)
        return self._zone.quarantine(name, content, note)

    def forgive(self, name: str) -> None:
        """Release one file."""
        if self._has(name):
            self._zone.release_file(name)

    def release(self, series: Series, period: str) -> None:
        """Release what was refused of a month, its days too, or of a day."""
        if self._has(refused_prefix(series, period)):
            self._zone.release(series, period)

    def _has(self, prefix: str) -> bool:
        with self._lock:
            return any(name.startswith(prefix) for name in self._listed())

    def _listed(self) -> set[str]:
        if self._names is None:
            self._names = self._zone.quarantined_names()
        return self._names
