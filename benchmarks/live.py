"""Live: from the closing frame's leaving the exchange until its bar can be read, with indicators, from serving.

The simulated exchange, the collector and the streaming run are processes of their own, as `make up` starts them; a bar
of 5m closes every 300 / speed seconds, so that a batch is usually over before the next one closes. `p50_s, p95_s,
p99_s, max_s` are over all closing frames after the first batch, from when the exchange sent one until a reader that had
not begun before could read it with its indicators (the begin of the first read that has it). `longer_p50_s,
longer_p99_s` are the same of the 15m bars that closed with them. Two readers open `serving/klinehouse.duckdb` and ask
all the time: `reads, failed_reads`. Every two minutes the streaming run is taken over from by a successor
(`hand_overs`). `stolen_percent` is the part of the processors' time that the machine's host gave to others. `batch_s`
is the median time of a batch until it is settled, `batch_ratio_6y_vs_1y` that on six years of history by that on one.
`beside_*` are the same figures while `klinehouse backfill` adds a year of history to the same home, which takes
`backfill_s`: the two take turns at the warehouse.

What bounds it: of a tenth of a second in which a bar of the base interval is shown, half is the query of the indicators
over the last bars, a third is writing and naming the new version; the two readers, who open the file of views again and
again, keep more than one of two cores busy. Longer bars wait for dbt, some 0.3 s for one model, of which its own Python
is half; and beside a backfill for the one transaction in which that builds its year.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.measuring import SYMBOLS, klinehouse, measured, options, processor_times, report, stolen_percent

_READERS = 2
_HAND_OVER = 120.0  # elsewhere a run lasts half an hour
END_OF_HISTORY = "2026-01"
# Of the exchange's clock: a bar closes every 3 s, and of many series every 10 s.
SPEED, SPEED_OF_MANY = 100.0, 30.0


@dataclass
class Home:
    """A home with so many years of history, and how its programs are started."""

    path: Path
    symbols: Sequence[str]
    interval: str = "5m"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def process_environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            klinehouse(*arguments),
            env=self.process_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )


@dataclass(frozen=True)
class Watched:
    """One run: figures, the lag of each close in order, the seconds of each batch."""

    figures: dict[str, object]
    lags: list[float]
    batches: list[float]


def live(closes: int, series: int, speed: float = SPEED) -> tuple[dict[str, object], dict[str, int]]:
    """The figures, and how many closes became readable within so many seconds."""
    old = _run(closes, series, speed, "2020-01")
    young = _run(min(closes, 20 * series), series, speed, "2025-01")
    batch = statistics.median(old.batches)
    # As many batches of both: each of a day's stream files costs a millisecond in the batches after it.
    ratio = round(statistics.median(old.batches[: len(young.batches)]) / statistics.median(young.batches), 3)
    figures = old.figures | {"batch_s": round(batch, 3), "batch_ratio_6y_vs_1y": ratio}
    return figures | _beside_backfill(series, speed), _histogram(old.lags)


def many(closes: int, series: int, speed: float = SPEED_OF_MANY) -> dict[str, object]:
    """The figures of many series, over a month of history."""
    watched = _run(closes, series, speed, "2025-12")
    return watched.figures | {"batch_s": round(statistics.median(watched.batches), 3)}


def _beside_backfill(series: int, speed: float) -> dict[str, object]:
    took: list[float] = []

    def backfill(home: Home) -> None:
        command = klinehouse("backfill", "--json", "--start", "2024-07", "--end", "2025-07")
        took.append(measured(command, home.environment).wall_s)

    watched = _run(series, series, speed, "2025-07", backfill)
    names = ("closes", "not_seen", "p50_s", "max_s", "reads", "failed_reads")
    return {"backfill_s": took[0], **{f"beside_{name}": watched.figures[name] for name in names}}


def _histogram(lags: Sequence[float]) -> dict[str, int]:
    limits = [0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, float("inf")]
    return {f"{low} to {high} s": sum(low <= lag < high for lag in lags) for low, high in itertools.pairwise(limits)}


def _run(
    closes: int, series: int, speed: float, start: str, meanwhile: Callable[[Home], None] | None = None
) -> Watched:
    """Watch so many closes on history from `start`; all closes while something else is done, if that is more."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        extra = max(series - len(SYMBOLS), 0)
        symbols = (*SYMBOLS[:series], *(f"SIM{number:03}USDT" for number in range(1, extra + 1)))
        home = Home(Path(folder) / "home", symbols)
        truth = Path(folder) / "truth.jsonl"
        fill(home, start, extra)
        options_of_exchange = ("--now", f"{END_OF_HISTORY}-01T00:00", "--speed", str(speed), "--truth", str(truth))
        running.enter_context(exchange(home, extra, *options_of_exchange))
        running.enter_context(ended(home.start("collect", "--json")))
        streaming = running.enter_context(Streaming(home))
        streaming.await_batch()
        readers = [running.enter_context(ended(_reader(home))) for _ in range(_READERS)]
        since, spent = time.time() + 2, processor_times()  # the readers are there
        if meanwhile:
            meanwhile(home)
            closes = max(closes, len(_sent(truth, since)))
        while len(_sent(truth, since)) < closes:
            time.sleep(1)
        time.sleep(10)
        seen = [_told(reader) for reader in readers]
        figures, lags = _figures(_sent(truth, since)[:closes], seen)
        about = {"hand_overs": streaming.hand_overs, "stolen_percent": stolen_percent(spent)}
        return Watched(figures | about, lags, streaming.seconds)


def _figures(
    sent: Sequence[tuple[tuple[str, int], float]], seen: Sequence[dict[str, Any]]
) -> tuple[dict[str, object], list[float]]:
    first: dict[tuple[str, str, int], float] = {}
    for reader in seen:
        for symbol, interval, open_time, at in reader["first_seen"]:
            key = (symbol, interval, open_time)
            first[key] = min(at, first.get(key, at))
    lags = sorted(first[symbol, "5m", opened] - at for (symbol, opened), at in sent if (symbol, "5m", opened) in first)
    ends_with = 10 * 60_000_000  # the last of the three bars of a quarter of an hour
    longer = [
        first[symbol, "15m", opened - ends_with] - at
        for (symbol, opened), at in sent
        if (symbol, "15m", opened - ends_with) in first
    ]
    figures: dict[str, object] = {
        "closes": len(sent),
        "not_seen": len(sent) - len(lags),
        **{f"p{centile}_s": _centile(lags, centile) for centile in (50, 95, 99)},
        "max_s": round(lags[-1], 3),
        **{f"longer_p{centile}_s": _centile(longer, centile) for centile in (50, 99)},
        "reads": sum(reader["reads"] for reader in seen),
        "failed_reads": sum(reader["failed"] for reader in seen),
    }
    return figures, lags


def _centile(values: Sequence[float], centile: int) -> float | None:
    if len(values) < 2:
        return None
    return round(statistics.quantiles(values, n=100, method="inclusive")[centile - 1], 3)


def _sent(truth: Path, since: float) -> list[tuple[tuple[str, int], float]]:
    lines = truth.read_text().splitlines() if truth.exists() else []
    bars = [json.loads(line) for line in lines]
    return [((bar["symbol"], bar["open_time"]), bar["sent"]) for bar in bars if bar["sent"] and bar["sent"] > since]


def fill(home: Home, start: str, extra: int) -> None:
    """Land and build what the exchange has from `start` until END_OF_HISTORY."""
    with exchange(home, extra, "--now", f"{END_OF_HISTORY}-01T00:00"):
        measured(klinehouse("land", "--json", "--start", start, "--end", END_OF_HISTORY), home.environment)
        measured(klinehouse("build", "--json"), home.environment)


@contextmanager
def exchange(home: Home, extra: int, *arguments: str) -> Iterator[None]:
    command = klinehouse("simulate", "--json", "--port", "0", "--symbols-extra", str(extra), *arguments)
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for above
        home.environment = {
            "KLINEHOUSE_HOME": str(home.path),
            "KLINEHOUSE_ARCHIVE_URL": json.loads(process.stdout.readline())["url"],
            "KLINEHOUSE_SYMBOLS": ",".join(home.symbols),
            "KLINEHOUSE_INTERVAL": home.interval,
            "KLINEHOUSE_COLLECTOR_PORT": "0",
        }
        yield


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


class Streaming:
    """A streaming run, and its successors every two minutes; the seconds of each batch."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.seconds: list[float] = []
        self.hand_overs = 0
        self._began, self._over = threading.Event(), threading.Event()
        self._runs: list[subprocess.Popen[str]] = []

    def await_batch(self) -> None:
        self._began.wait(120)

    def __enter__(self) -> "Streaming":
        self._start()
        threading.Thread(target=self._hand_over, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for run in self._runs:
            run.kill()
            run.wait()

    def _start(self) -> None:
        run = self._home.start("stream", "--json")
        self._runs.append(run)
        threading.Thread(target=self._follow, args=(run,), daemon=True).start()

    def _hand_over(self) -> None:
        while not self._over.wait(_HAND_OVER):
            self._start()
            self.hand_overs += 1

    def _follow(self, run: subprocess.Popen[str]) -> None:
        assert run.stdout is not None  # noqa: S101 - it was asked for above
        for line in run.stdout:
            self.seconds.append(json.loads(line)["seconds"])
            self._began.set()


def _reader(home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.live", "--read", str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _told(reader: subprocess.Popen[str]) -> dict[str, Any]:
    """End a reader, and hear what it saw."""
    told: dict[str, Any] = json.loads(reader.communicate("", timeout=30)[0])
    return told


def read(home: Path) -> dict[str, object]:
    """Ask for the newest bars, again and again, until standard input ends; what was seen when for the first time."""
    over = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=await_end, daemon=True).start()
    seen: dict[tuple[str, str, int], float] = {}
    newest, reads, failed = 0, 0, 0
    while not over.is_set():
        began = time.time()
        try:
            for bar in _newest(home, newest - 86_400_000_000):
                if seen.setdefault(bar, began) == began:
                    newest = max(newest, bar[2])
            reads += 1
        except duckdb.Error as error:
            failed += 1
            print(f"A read failed: {error}", file=sys.stderr)
    return {"first_seen": [(*key, at) for key, at in seen.items()], "reads": reads, "failed": failed}


def _newest(home: Path, since: int) -> list[tuple[str, str, int]]:
    with duckdb.connect(str(home / "serving" / "klinehouse.duckdb"), read_only=True) as connection:
        return connection.execute(
            """select symbol, "interval", epoch_us(open_time) from crypto_analytics.market_data_unified
            where "interval" in ('5m', '15m')
                and open_time >= greatest(make_timestamptz(?), timestamptz '2026-01-01 00:00:00+00')
                and ema_50 is not null and macd_signal is not null and rsi_14 is not null and bb_upper is not null""",
            [since],
        ).fetchall()


def _chosen(closes: int, series: int, speed: float | None) -> dict[str, object]:
    if series <= len(SYMBOLS):
        return live(closes, series, speed or SPEED)[0]
    # Six years of a hundred symbols take an hour to land; what history costs is told of three.
    of_three, _ = live(60, len(SYMBOLS), speed or SPEED)
    return many(closes, series, speed or SPEED_OF_MANY) | {"batch_ratio_6y_vs_1y": of_three["batch_ratio_6y_vs_1y"]}


def main() -> None:
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--closes", type=int, default=1000)
    parser.add_argument("--series", type=int, default=3)
    parser.add_argument(
        "--speed", type=float, help=f"of the exchange's clock; else {SPEED:.0f}, of many series {SPEED_OF_MANY:.0f}"
    )
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        print(json.dumps(read(chosen.read)))
    else:
        report("Live", _chosen(chosen.closes, chosen.series, chosen.speed), chosen)


if __name__ == "__main__":
    main()
