"""Collecting: a week of the exchange's time, with the bus away for a day in the middle.

The simulated exchange runs in a process of its own, many times faster than time; the collector runs in this one, so
that its memory is this process's. `bars` is what was published; `missing`, `wrong` and `out_of_order` compare it with
the exchange's own account (a bar out of order is one that came before an earlier one of its series). `rss_start_mb` is
the resident memory after a tenth of the time, `rss_end_mb` at the end, `rss_peak_mb` the most of all samples;
`spool_peak` the messages that waited for the bus at most, and `health` the statuses that /health went through.

What bounds the memory: queues and sets with a bound, watermarks instead of histories.
"""

import itertools
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from benchmarks.measuring import SYMBOLS, klinehouse, options, report
from ingestion.bus.local import LocalBus
from ingestion.bus.port import MICROBATCH, Message
from ingestion.collector.service import Service
from ingestion.errors import BusUnavailable
from ingestion.messages import KlineMessage, decode
from ingestion.settings import load_settings

_DAY = 86_400.0


class AwayBus(LocalBus):
    """A local bus that can be away."""

    away = False

    def publish(self, topic: str, messages: Sequence[Message]) -> list[str]:
        if self.away:
            raise BusUnavailable("The bus is away.", "It comes back.")
        return super().publish(topic, messages)


@dataclass
class Watch:
    """Samples of the collector while it runs."""

    rss_mb: list[float] = field(default_factory=list)
    spool: list[int] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)

    def sample(self, address: str) -> None:
        health: dict[str, Any] = urllib3.request("GET", f"{address}/health", timeout=30, retries=False).json()
        self.rss_mb.append(_rss_mb())
        self.spool.append(health.get("spool_messages", 0))
        if self.statuses[-1:] != [health["status"]]:
            self.statuses.append(health["status"])


def collect(days: float, seconds: float) -> dict[str, object]:
    """Collect `days` of the exchange's time in about so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home, truth = Path(folder) / "home", Path(folder) / "truth.jsonl"
        with _exchange(days * _DAY / seconds, truth) as exchange:
            settings = load_settings(home=home, archive_url=exchange, symbols=",".join(SYMBOLS), collector_port=0)
            bus = AwayBus(settings.bus_path)
            watch = _watched(Service(settings, bus), bus, seconds)
        bars = list(_published(bus))
        bus.close()
        return _figures(watch, bars, truth)


def _watched(service: Service, bus: AwayBus, seconds: float) -> Watch:
    addresses: list[str] = []
    thread = threading.Thread(target=service.run, args=(addresses.append,))
    thread.start()
    while not addresses:
        time.sleep(0.05)
    watch, begun = Watch(), time.monotonic()
    away = (seconds * 3 / 7, seconds * 4 / 7)
    while (passed := time.monotonic() - begun) < seconds:
        bus.away = away[0] < passed < away[1]
        watch.sample(addresses[0])
        time.sleep(seconds / 200)
    service.stop()
    thread.join()
    return watch


@contextmanager
def _exchange(speed: float, truth: Path) -> Iterator[str]:
    command = klinehouse("simulate", "--port", "0", "--speed", str(speed), "--truth", str(truth), "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for above
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def _published(bus: LocalBus) -> Iterator[KlineMessage]:
    while received := bus.pull(MICROBATCH, max_messages=1000, max_bytes=1 << 24, wait=0):
        yield from (decode(one.message) for one in received)
        bus.acknowledge(MICROBATCH, [one.ack_id for one in received])


def _figures(watch: Watch, bars: Sequence[KlineMessage], truth: Path) -> dict[str, object]:
    told = {(line["symbol"], line["open_time"]): line["values"] for line in map(json.loads, truth.open())}
    published = {(bar.symbol, bar.open_time): bar for bar in bars}
    spans = {symbol: [bar.open_time for bar in bars if bar.symbol == symbol] for symbol in SYMBOLS}
    due = [key for key in told if spans[key[0]][0] <= key[1] <= spans[key[0]][-1]]
    tenth = max(len(watch.rss_mb) // 10, 1)
    return {
        "bars": len(bars),
        "from_rest": sum(bar.source == "rest" for bar in bars),
        "duplicates": len(bars) - len(published),
        "missing": sum(key not in published for key in due),
        "wrong": sum(key in published and _differs(published[key], told[key]) for key in due),
        "out_of_order": sum(b < a for opens in spans.values() for a, b in itertools.pairwise(opens)),
        "spool_peak": max(watch.spool),
        # A bar that has just closed is in the spool for a moment, so the last sample alone says nothing.
        "spool_end": min(watch.spool[-tenth:]),
        "health": " > ".join(watch.statuses),
        "rss_start_mb": statistics.median(watch.rss_mb[tenth : 2 * tenth]),
        "rss_end_mb": statistics.median(watch.rss_mb[-tenth:]),
        "rss_peak_mb": max(watch.rss_mb),
    }


def _differs(bar: KlineMessage, values: Sequence[str]) -> bool:
    told = [bar.open, bar.high, bar.low, bar.close, bar.volume]
    return told != values[1:6] or str(bar.trades) != values[8]


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 1e6, 1)


def main() -> None:
    parser = options(__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=7, help="of the exchange's time")
    parser.add_argument("--seconds", type=float, default=120, help="in which they pass")
    chosen = parser.parse_args()
    report(parser.description or "", collect(chosen.days, chosen.seconds), chosen)


if __name__ == "__main__":
    main()
