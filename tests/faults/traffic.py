"""Bars on their way from the spool over the bus into the raw zone, by two processes that are killed and started again.

The source keeps bars and publishes them, as far as it is allowed (a share of them for each kill), so that there is work
whenever a kill falls. The sink lands micro-batches until the source has ended and nothing waits.
"""

import hashlib
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

from support.streamed import numbered, rows_of

from faults.flows import NoWarehouse
from faults.queues import TOPOLOGY_AT_ONCE
from ingestion import microbatch
from ingestion.bus.local import LocalBus
from ingestion.bus.port import MICROBATCH
from ingestion.collector.metrics import Metrics
from ingestion.collector.publisher import Publisher
from ingestion.collector.sequence import following
from ingestion.collector.spool import Spool
from ingestion.settings import Settings
from ingestion.stream_zone import StreamZone
from warehouse import streaming

SETTINGS = {"symbols": "BTCUSDT,ETHUSDT", "interval": "1m"}
# A message that many kills hit is no dead letter here.
_TOPOLOGY = tuple(replace(one, max_delivery_attempts=1000) for one in TOPOLOGY_AT_ONCE)
# Messages that are kept and published together, and that land together.
_KEPT, _BATCH = 100, 500


def allow(home: str, bars: int) -> None:
    """The source may go on until it has published so many bars."""
    (Path(home) / "allowed.new").write_text(str(bars))
    (Path(home) / "allowed.new").rename(Path(home) / "allowed")


def end(home: str) -> None:
    """The source has ended: the sink may, too."""
    (Path(home) / "ended").touch()


def source(settings: Settings, count: int) -> None:
    """Publish `count` bars by way of the spool, from the watermarks on."""
    spool, bars = Spool(settings.spool_path, 1 << 24), numbered(count)
    with LocalBus(settings.bus_path, _TOPOLOGY) as bus:
        publisher = Publisher(spool, bus, Metrics())
        publisher.stop()  # returns from `run` when nothing is left
        for first in range(0, count, _KEPT):
            batch = bars[first : first + _KEPT]
            new = [bar for bar in batch if bar.open_time >= (spool.watermark(bar.series) or 0)]
            while int((settings.home / "allowed").read_text()) < first + len(batch):
                time.sleep(0.002)
            if new:
                spool.append(new, {bar.series: following(bar.series, bar.open_time) for bar in new})
            publisher.run()
    spool.close()


def sink(settings: Settings) -> None:
    """Land what is on the bus. Time stands still meanwhile, and what a killed sink had leased is there again."""
    leased_until = _leased_until(settings.bus_path)
    if leased_until:
        with (settings.home / "interrupted").open("a") as notes:
            notes.write("in the middle of a batch\n")
    now = max(time.time(), leased_until + 1)
    with (
        LocalBus(settings.bus_path, _TOPOLOGY, clock=lambda: now) as bus,
        mock.patch.object(streaming, "LiveDuckDB", NoWarehouse),
        mock.patch.object(microbatch, "MAX_MESSAGES", _BATCH),
    ):

        def is_over() -> str | None:
            ended = (settings.home / "ended").exists()
            return "nothing comes any more" if ended and not bus.backlog(MICROBATCH).messages else None

        streaming.stream(settings, bus, lambda report: None, is_over)


def await_lease(home: str) -> None:
    """Until the sink has leased messages, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not _leased_until(Path(home) / "bus" / "bus.sqlite") and time.monotonic() < deadline:
        time.sleep(0.001)


def _leased_until(path: Path) -> float:
    """When the last lease ends, in seconds since 1970; 0 where there is none."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found: float = db.execute("select coalesce(max(due_at), 0) / 1e6 from deliveries").fetchone()[0]
        return found
    return 0.0


def interruptions(home: Path) -> int:
    """How many sinks were killed between a lease and its acknowledgement."""
    return len((home / "interrupted").read_text().splitlines())


def landed(settings: Settings) -> str:
    """A digest of the bars in all files."""
    zone = StreamZone(settings.raw_root)
    return digest(rows_of(zone.read(file) for file in zone.files()).values())


def digest(rows: Iterable[object]) -> str:
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()
