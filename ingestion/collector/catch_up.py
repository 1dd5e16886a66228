"""Bars that the stream did not bring, by REST: a page of one series at a time, in order, by a few threads."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from queue import Queue
from typing import Any

from ingestion.binance.rest import Rest
from ingestion.collector.sequence import Fetched, following
from ingestion.errors import ExchangeRefused
from ingestion.grid import instant, micros
from ingestion.klines import DECIMAL_COLUMNS, INTERVAL_MICROS, Series, grid_micros
from ingestion.messages import KlineMessage
from ingestion.provenance import REST
from ingestion.row_rules import integers

_LOG = logging.getLogger(__name__)

_WORKERS = 4
# One question: a full page of 1000 would be followed by another one.
_PAGE_BARS = 999
# A bar that has just closed may still be corrected; the stream has it a moment later anyway.
_SETTLING = timedelta(seconds=2)
# Once REST is back, every series is whole again within a minute.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 45.0
_MONTH = 31 * 86_400_000_000


@dataclass(frozen=True)
class FetchFailed:
    """REST refused, or was not reached."""

    series: Series
    error: ExchangeRefused


class Fetcher:
    """Asks REST in threads of its own; answers are Fetched and FetchFailed, put into `events`."""

    def __init__(self, rest: Callable[[], Rest], events: "Queue[Any]", most_bars: int) -> None:
        self._rest, self._events, self._most_bars = rest, events, most_bars
        self._jobs: Queue[tuple[Series, int | None]] = Queue()

    def start(self) -> None:
        for number in range(_WORKERS):
            threading.Thread(target=self._work, name=f"catch-up-{number}", daemon=True).start()

    def ask(self, series: Series, start: int | None) -> None:
        """Fetch one page of the closed bars from `start` on; None only finds out which bar is open now."""
        self._jobs.put((series, start))

    def _work(self) -> None:
        while True:
            series, start = self._jobs.get()
            try:
                self._events.put(self.fetch(series, start))
            except ExchangeRefused as error:
                self._events.put(FetchFailed(series, error))

    def fetch(self, series: Series, start: int | None) -> Fetched:
        """Raises ExchangeRefused."""
        now = micros(self._rest().server_time())
        settled = now - _SETTLING // timedelta(microseconds=1)
        length = INTERVAL_MICROS[series.interval] or _MONTH
        if start is None:
            start = self._open_now(series, settled)
            return Fetched(series, start, start, (), now)
        start = self._bounded(series, start, settled - (self._most_bars + 1) * length)
        end = min(start + _PAGE_BARS * length, settled)
        bars = self._bars(series, start, end, settled, now) if start < end else ()
        return Fetched(series, start, max(start, end), bars, now)

    def _open_now(self, series: Series, settled: int) -> int:
        """When the bar opened that is open now."""
        grid = grid_micros(series.interval)
        if grid:
            return settled // grid * grid
        earliest = settled - 2 * _MONTH
        closed = self._bars(series, earliest, settled, settled, settled)
        return following(series, closed[-1].open_time) if closed else earliest

    def _bounded(self, series: Series, start: int, earliest: int) -> int:
        if start >= earliest:
            return start
        later = following(series, earliest)
        _LOG.warning(
            "the collector was away for too long: what is between is for history to fill",
            extra={"series": str(series), "from": instant(start), "to": instant(later)},
        )
        return later

    def _bars(self, series: Series, start: int, end: int, settled: int, now: int) -> list[KlineMessage]:
        answer = self._rest().klines(series, instant(start), instant(end), now=instant(settled))
        if answer.parsed is None:
            return []
        if answer.parsed.broken.reasons:
            _LOG.warning("REST sent rows that break a rule", extra={"reason": answer.parsed.broken.summary})
        rows = answer.parsed.rows
        columns = {name: rows[name].to_pylist() for name in (*DECIMAL_COLUMNS, "trades")}
        times = {name: integers(rows[name]).tolist() for name in ("open_time", "close_time")}
        received = micros(answer.fetched_at)
        return [
            KlineMessage(
                symbol=series.symbol,
                interval=series.interval,
                open_time=times["open_time"][row],
                close_time=times["close_time"][row],
                **{name: f"{columns[name][row]:f}" for name in DECIMAL_COLUMNS},
                trades=columns["trades"][row],
                source=REST,
                event_time=now,
                received_time=received,
            )
            for row in range(rows.num_rows)
        ]


class Wants:
    """Which series want a page, which of them may ask now, and when those that failed ask again. Of one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wanted: dict[Series, None] = {}  # in order of wanting
        self._asked: set[Series] = set()
        self._retries: dict[Series, tuple[float, int]] = {}

    def want(self, series: Series) -> None:
        if series not in self._asked:
            self._wanted.setdefault(series)

    def is_wanted(self, series: Series) -> bool:
        return series in self._wanted or series in self._asked

    def hurry(self, series: Series) -> None:
        """Something new is known: ask without waiting for the next retry."""
        if series in self._retries:
            self._retries[series] = (0.0, self._retries[series][1])

    def next(self) -> list[Series]:
        """The series to ask for now: as many as there are threads."""
        now = self._clock()
        ready = [one for one in self._wanted if self._retries.get(one, (0.0, 0))[0] <= now]
        chosen = ready[: max(_WORKERS - len(self._asked), 0)]
        for series in chosen:
            del self._wanted[series]
        self._asked.update(chosen)
        return chosen

    def answered(self, series: Series, *, progress: bool) -> None:
        """An answer came; without progress the next question waits longer."""
        self._asked.discard(series)
        if progress:
            self._retries.pop(series, None)
            return
        failures = self._retries.get(series, (0.0, 0))[1]
        wait = min(_FIRST_WAIT * 2**failures, _LONGEST_WAIT)
        jittered = random.uniform(wait / 2, wait)  # noqa: S311 - jitter
        self._retries[series] = (self._clock() + jittered, min(failures + 1, 16))
