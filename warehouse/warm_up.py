"""What only the first batch of a process pays for, done before there is one: imports, dbt's manifest, compiled macros,
six seconds in all. A successor does it while the run before it still works, and leaves that most of the machine."""

import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from ingestion.bus.port import Received
from ingestion.grid import micros
from ingestion.klines import grid_micros
from ingestion.messages import KlineMessage, encode
from ingestion.microbatch import land, read, stretches
from ingestion.provenance import STREAM
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import dbt
from warehouse.engine import streaming_turn
from warehouse.live import LiveWarehouse

_OPENS = datetime(2020, 1, 1, tzinfo=UTC)
# A thread that the nicer ones get a tenth of the time of, where there is not enough for both.
_NICER = 10


def warm_up(settings: Settings) -> None:
    """Rehearse a batch; as long as another run has the turn, at a lower priority than that."""
    step_back = _step_back if streaming_turn(settings).is_anothers() else None
    with ThreadPoolExecutor(1, "warm-up", step_back) as thread:
        thread.submit(_rehearse, settings).result()


def _step_back() -> None:
    # On Linux a thread has a priority of its own, and hands it down to those that it starts. It could not take it back.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICER)


def _rehearse(settings: Settings) -> None:
    """Rehearse a batch of one bar in a home of its own; on BigQuery, which has no such place, only until it is read."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = settings.model_copy(update={"home": Path(folder), "raw_url": ""})
        batch = read([Received("", "", encode(_bar(scratch)), _OPENS, 1)], scratch)
        if settings.target == "bigquery":
            dbt.compile_bars(scratch)
            return
        with LiveWarehouse(scratch) as warehouse:
            land(batch, StreamZone(scratch.raw_root))
            for stretch in stretches(batch.rows):
                warehouse.rehearse(stretch)
        dbt.live_query(settings.interval)


def _bar(settings: Settings) -> KlineMessage:
    opens = micros(_OPENS)
    ends = opens + (grid_micros(settings.interval) or 0)
    return KlineMessage(
        symbol=settings.symbols[0],
        interval=settings.interval,
        open_time=opens,
        close_time=ends - 1,
        **dict.fromkeys(("open", "high", "low", "close"), "1"),
        **dict.fromkeys(("volume", "quote_volume", "taker_buy_base_volume", "taker_buy_quote_volume"), "0"),
        trades=0,
        source=STREAM,
        event_time=ends,
        received_time=ends,
    )
