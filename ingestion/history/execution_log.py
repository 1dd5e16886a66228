"""The log of one landing run: `logs/history/YYYY/MM/DD/execution_<time>.json`."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ingestion.binance.http import Traffic
from ingestion.history.month import MonthResult
from ingestion.settings import Settings
from ingestion.store import write_durably

_DROPPED = ("duplicates", "conflicts", "broken")


class Record:
    """Collects what became of the months of a run. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: list[MonthResult] = []

    def add(self, result: MonthResult) -> None:
        with self._lock:
            self._results.append(result)

    def summary(self) -> dict[str, Any]:
        """Per series: months by outcome, rows, files and bytes per source; and every problem of the run."""
        by_series = defaultdict(list)
        for result in sorted(self._results, key=lambda result: (result.series, result.month)):
            by_series[result.series].append(result)
        problems = [
            {"series": str(series), "month": str(result.month), **asdict(problem)}
            for series, results in by_series.items()
            for result in results
            for problem in result.problems
        ]
        return {"series": [_series_summary(results) for results in by_series.values()], "problems": problems}


def _series_summary(results: list[MonthResult]) -> dict[str, Any]:
    files = [file for result in results for file in result.files]
    outcomes = [str(result.outcome) for result in results]
    return {
        "symbol": results[0].series.symbol,
        "interval": results[0].series.interval,
        "months": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "rows": sum(result.rows for result in results),
        "files": {source: sum(file.source == source for file in files) for source in sorted({f.source for f in files})},
        "bytes": sum(file.bytes for file in files),
        "dropped_rows": {name: sum(getattr(file, name) for file in files) for name in _DROPPED},
        "quarantined": sum(len(result.quarantined) for result in results),
        "missing": [[window.start, window.end] for result in results for window in result.missing],
        "seconds": round(sum(result.seconds for result in results), 3),
    }


@contextmanager
def recording(settings: Settings, traffic: Traffic) -> Iterator[Record]:
    """Write the log when the run ends, however it ends."""
    record, begin = Record(), datetime.now(UTC)
    error: str | None = None
    try:
        yield record
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        end = datetime.now(UTC)
        log = {
            "started_at": begin,
            "ended_at": end,
            "seconds": round((end - begin).total_seconds(), 3),
            "error": error,
            "traffic": traffic.as_dict(),
            **record.summary(),
        }
        folder = settings.log_dir / "history" / f"{begin:%Y}" / f"{begin:%m}" / f"{begin:%d}"
        name = f"execution_{begin:%Y-%m-%dT%H-%M-%S.%fZ}.json"
        write_durably(folder / name, json.dumps(log, default=str, indent=1).encode() + b"\n")
