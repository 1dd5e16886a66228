"""What a run asks the exchange through, and what it remembers of the answers: shared by all months and threads."""

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TypeVar

import pyarrow as pa
from pyarrow import csv

from ingestion.binance.archive import ArchiveFile, BadArchiveFile, monthly_path
from ingestion.binance.exchange import Exchange
from ingestion.binance.rest import RestKlines, UnknownSymbol
from ingestion.errors import ExchangeRefused
from ingestion.grid import Window
from ingestion.history.refused import Refused
from ingestion.klines import Month, Series
from ingestion.provenance import REST, SourceFile
from ingestion.raw_zone import Environment, RawZone
from ingestion.row_rules import BrokenRows

T = TypeVar("T")


class Sources:
    """Archive and REST of one exchange for one raw zone; what they send is claimed for that zone before it is used."""

    def __init__(self, exchange: Exchange, zone: RawZone) -> None:
        self._exchange, self.zone = exchange, zone
        self._lock = threading.Lock()
        self._rest_refusal: ExchangeRefused | None = None
        self._rest_answers = False
        self._first_question = threading.Lock()
        self._first_bars: dict[Series, datetime | UnknownSymbol | None] = {}
        self._kept_first_bars: dict[Series, datetime | None] = {}
        self._refused = Refused(zone)
        # Parsing and writing use whole cores; more of them at once only take memory.
        self.cores = threading.BoundedSemaphore(os.cpu_count() or 1)

    # --- archive -------------------------------------------------------------------------------------------------

    def fetch(self, path: str) -> ArchiveFile | None:
        """A verified file of the archive; None when it has none. Raises BadArchiveFile, ExchangeRefused."""
        file = self._exchange.archive.fetch(path)
        if file is not None:
            self.zone.claim(Environment.of(self._exchange.archive.simulation))
        return file

    def checksum(self, path: str) -> str | None:
        return self._exchange.archive.checksum(path)

    def is_known_bad(self, path: str) -> bool:
        """Whether a file is in quarantine and has not changed at the source since."""
        note = self._refused.note(path.rsplit("/", 1)[-1])
        if note is None:
            return False
        now = self._exchange.archive.fingerprint(path)
        return (note.get("checksum"), note.get("headers")) == (now.checksum, now.headers)

    def quarantine(self, path: str, bad: BadArchiveFile) -> str:
        """Keep a refused file under its own name; returns where."""
        note = {
            "url": self._exchange.archive.url(path),
            "reason": bad.reason,
            "checksum": bad.fingerprint.checksum,
            "headers": bad.fingerprint.headers,
        }
        return self._refused.keep(path.rsplit("/", 1)[-1], bad.content, note)

    def forgive(self, path: str) -> None:
        """Release a refused version of a file: the one that has landed is at the source again."""
        self._refused.forgive(path.rsplit("/", 1)[-1])

    def release(self, series: Series, period: str) -> None:
        """Release what was refused of a month, its days too, or of a day: it has landed since."""
        self._refused.release(series, period)

    def quarantine_rows(self, file: SourceFile, series: Series, month: Month, broken: BrokenRows) -> str:
        """Keep rows that break a rule as CSV, each with the rule; returns where."""
        zip_name = file.url.rsplit("/", 1)[-1].removesuffix(".zip")
        # Named like the month's zip in both cases, so that it is released with it.
        month_name = monthly_path(series, month).rsplit("/", 1)[-1].removesuffix(".zip")
        name = f"{month_name}.rest" if file.source == REST else zip_name
        sink = pa.BufferOutputStream()
        reasons = pa.chunked_array([list(broken.reasons)], pa.string())
        csv.write_csv(broken.rows.append_column("broken_rule", reasons), sink)
        note = {"url": file.url, "reason": broken.summary, "rows": len(broken.reasons)}
        return self._refused.keep(f"{name}.rows.csv", sink.getvalue().to_pybytes(), note)

    # --- REST ----------------------------------------------------------------------------------------------------

    def rest_klines(self, series: Series, window: Window) -> RestKlines:
        """Closed bars of a window. Raises ExchangeRefused; once REST has refused, it is not asked again in this run."""
        unknown = self._first_bars.get(series)
        if isinstance(unknown, UnknownSymbol):
            raise unknown
        return self._ask_rest(lambda: self._exchange.rest.klines(series, *window))

    def first_open_time(self, series: Series) -> datetime | None:
        """When the series' first bar opened: as kept, or asked once. None when it has none; raises ExchangeRefused."""
        with self._lock:
            if series not in self._first_bars:
                self._first_bars[series] = self._find_first_bar(series)
            found = self._first_bars[series]
        if isinstance(found, UnknownSymbol):
            raise found
        return found

    def known_first_open_time(self, series: Series) -> datetime | None:
        """The same, without asking."""
        with self._lock:
            found = self._first_bars.get(series)
            return found if isinstance(found, datetime) else self._kept_first_bar(series)

    def _find_first_bar(self, series: Series) -> datetime | UnknownSymbol | None:
        kept = self._kept_first_bar(series)
        if kept is not None:
            return kept
        try:
            found = self._ask_rest(lambda: self._exchange.rest.first_open_time(series))
        except UnknownSymbol as unknown:
            return unknown
        if found is not None:
            self.zone.write_first_open_time(series, found)
        return found

    def _kept_first_bar(self, series: Series) -> datetime | None:
        if series not in self._kept_first_bars:
            self._kept_first_bars[series] = self.zone.first_open_time(series)
        return self._kept_first_bars[series]

    def now(self) -> datetime:
        """The exchange's clock; ours while REST cannot be reached (what needs REST then says so)."""
        try:
            return self._ask_rest(lambda: self._exchange.rest.now)
        except ExchangeRefused:
            return datetime.now(UTC)

    def _ask_rest(self, ask: Callable[[], T]) -> T:
        # Until REST has answered once, only one thread asks: a host that refuses is not asked by all of them.
        with nullcontext() if self._rest_answers else self._first_question:
            found = self._asked(ask)
            self._rest_answers = True
        return found

    def _asked(self, ask: Callable[[], T]) -> T:
        if self._rest_refusal is not None:
            raise self._rest_refusal
        try:
            found = ask()
        except UnknownSymbol:
            raise
        except ExchangeRefused as refusal:
            self._rest_refusal = refusal
            raise
        self.zone.claim(Environment.of(self._exchange.rest.simulation))
        return found
