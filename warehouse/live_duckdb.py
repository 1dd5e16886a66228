"""The warehouse as the streaming run writes it on DuckDB: bars are shown at once, and settled beside that.

Showing a bar is computing its indicators in memory and publishing them, a tenth of a second. Settling it is what makes
it last: dbt computes it, and what follows from it, into the warehouse, and that is published. A thread of its own
settles, so bars are shown also while dbt works, or while a build of history holds the warehouse.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from ingestion.errors import WarehouseBusy
from ingestion.microbatch import stretches
from ingestion.settings import Settings
from warehouse import dbt, serving
from warehouse.fresh_bars import FreshBars
from warehouse.live import LiveWarehouse
from warehouse.live_port import Applied

# Bars that come meanwhile are settled together, so long at most.
_GATHER = 2.0
_PATIENCE = 2.0


@dataclass(frozen=True)
class _Pending:
    rows: pa.Table
    applied: Applied
    since: float


@dataclass(frozen=True)
class _Settled:
    """`known` is what newer bars are computed from now."""

    known: pa.Table | None
    at: datetime
    seconds: float


class LiveDuckDB:
    """One writer, in one process, with a thread of its own that settles. Not for several threads besides."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._served = serving.Served(settings)
        self._warehouse = LiveWarehouse(settings, self._served)
        self._fresh = FreshBars(dbt.live_query(settings.interval))
        self._publisher = duckdb.connect()
        self._publisher.execute("set TimeZone = 'UTC'")
        self._worker = ThreadPoolExecutor(1, "settle")
        self._work: Future[_Settled | None] | None = None
        self._pending: list[_Pending] = []
        self._settling: list[_Pending] = []

    def apply(self, rows: pa.Table) -> Applied:
        """Show bars that have landed, and note that they are to be settled. Late ones, and those of a series of which
        fewer bars are known than the averages remember, wait until then."""
        started = time.monotonic()
        applied = Applied()
        self._is_free()  # takes note of what is known by now
        fresh = self._fresh.compute(rows)
        if fresh.num_rows:
            serving.show(self._settings, self._publisher, self._served, fresh)
        if fresh.num_rows == rows.num_rows:
            applied.visible_at = datetime.now(UTC)
        applied.seconds = time.monotonic() - started
        self._pending.append(_Pending(rows, applied, started))
        return applied

    def between_batches(self, *, nothing_waits: bool) -> None:
        """Settle what has been shown, when nothing more comes; give the warehouse away when another process wants it.
        Raises what settling that has ended raised: BuildFailed when dbt fails."""
        if not self._is_free():
            return
        if self._pending and (nothing_waits or self._is_urgent()):
            self._settling, self._pending = self._pending, []
            self._work = self._worker.submit(self._settle, pa.concat_tables([one.rows for one in self._settling]))
        elif self._warehouse.is_wanted():
            self._work = self._worker.submit(self._warehouse.close)

    def tidy(self) -> None:
        """Begin what need not happen with each batch. Raises as `between_batches` does."""
        if self._is_free():
            self._work = self._worker.submit(self._warehouse.tidy)

    def close(self) -> None:
        """Waits for the end of settling that has begun."""
        self._worker.shutdown()
        self._warehouse.close()
        self._fresh.close()
        self._publisher.close()

    def _is_free(self) -> bool:
        """Whether no work is going on; takes note of work that has ended."""
        if self._work is None:
            return True
        if not self._work.done():
            return False
        work, self._work = self._work, None
        settling, self._settling = self._settling, []
        try:
            settled = work.result()
        except WarehouseBusy:  # a build over years; the messages stay ours meanwhile
            self._pending = [*settling, *self._pending]
            return True
        if settled is not None:
            self._take_note(settled, settling)
        return True

    def _take_note(self, settled: _Settled, settling: Sequence[_Pending]) -> None:
        if settled.known is not None:
            self._fresh.remember(settled.known)
        for one in settling:
            one.applied.visible_at = one.applied.visible_at or settled.at
            one.applied.seconds += settled.seconds
            one.applied.is_settled = True

    def _is_urgent(self) -> bool:
        """Whether bars wait long, or cannot be seen yet."""
        waits = time.monotonic() - self._pending[0].since > _GATHER
        return waits or any(one.applied.visible_at is None for one in self._pending)

    # --- in the thread of its own ----------------------------------------------------------------------------------

    def _settle(self, rows: pa.Table) -> _Settled:
        started = time.monotonic()
        for stretch in stretches(rows):
            self._warehouse.apply(stretch)
        at, seconds = datetime.now(UTC), time.monotonic() - started
        return _Settled(self._warehouse.known_bars(), at, seconds)

    def _look(self) -> _Settled:
        return _Settled(self._warehouse.known_bars(), datetime.now(UTC), 0.0)

    def __enter__(self) -> Self:
        self._work = self._worker.submit(self._look)
        wait([self._work], _PATIENCE)  # bars are shown from the first batch on, unless a build has the warehouse
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
