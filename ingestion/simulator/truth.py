"""The truth of the stream on disk: one JSON line for each bar that closed in a series that was ever subscribed.

    {"symbol": "BTCUSDT", "interval": "5m", "open_time": 1735689300000000, "values": ["1735689300000000", ...],
     "closed": 1735689600000000, "sent": 1763800000.123, "fault": null}

`values` are the eleven of the archive as text, its times in microseconds. `closed` is the instant of the close in
exchange time, `sent` the machine's time at which the closing frame left, or null with the reason in `fault`.
"""

import json
from pathlib import Path
from typing import TextIO

from ingestion.errors import UsageError
from ingestion.klines import Series
from ingestion.simulator.frames import values
from ingestion.simulator.tape import Kline


class Truth:
    """Appends to a file, so that an exchange that was started again goes on in it; without a file it forgets."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        try:
            if path:
                path.touch()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be written: {error.strerror}.", "Give a file in a folder of yours."
            ) from error

    def open(self) -> None:
        if self._path:
            self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        if self._file:
            self._file.close()

    def note(self, series: Series, kline: Kline, sent: float | None, fault: str | None) -> None:
        if not self._file:
            return
        line = {
            "symbol": series.symbol,
            "interval": series.interval,
            "open_time": kline.open_time,
            "values": values(kline),
            "closed": kline.close_time + 1,
            "sent": sent,
            "fault": fault,
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
