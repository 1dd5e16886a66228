"""What the benchmarks share: an archive of ready-made files, child processes with their costs, the machine's name."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from ingestion.binance.archive import monthly_path
from ingestion.klines import Series, months_between
from ingestion.simulator.archive import Files, market_files
from ingestion.simulator.faults import Faults
from ingestion.simulator.market import Market
from ingestion.simulator.server import build_app, running

ROOT = Path(__file__).parent.parent
SEED = 1
START, END = date(2020, 1, 1), date(2026, 1, 1)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
_STEAL = 7


@dataclass(frozen=True)
class Cost:
    """What a child process took: wall and CPU seconds, and its largest resident memory in MB."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    stdout: str


def measured(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Run a whole command, as a user would, and measure it from outside."""
    begin = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for above
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {stdout}")
    wall = time.perf_counter() - begin
    return Cost(round(wall, 3), round(usage.ru_utime + usage.ru_stime, 3), round(usage.ru_maxrss / 1024, 1), stdout)


def stolen_percent(since: Sequence[int]) -> float | None:
    """The part of the processors' time that the host of a virtual machine gave to others, since `processor_times()`."""
    spent = [now - then for now, then in zip(processor_times(), since, strict=True)]
    return round(100 * spent[_STEAL] / sum(spent), 1) if sum(spent) else None


def processor_times() -> list[int]:
    """Of all processors, from /proc/stat where there is one: user, nice, system, idle, iowait, irq, softirq, steal."""
    stat = Path("/proc/stat")
    return [int(field) for field in stat.read_text().split(maxsplit=9)[1:9]] if stat.exists() else [0] * 8


def klinehouse(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("klinehouse")), *arguments]


@contextmanager
def ready_archive(interval: str, latency: float = 0.0) -> Iterator[str]:
    """An archive whose files lie ready on disk, so that making them is not part of what is measured; its address.

    `latency` are the seconds that it lets pass before every answer.
    """
    folder = ROOT / ".cache" / "benchmarks" / f"archive-{SEED}-{interval}"
    done = folder / ".complete"
    if not done.exists():
        files = market_files(Market(SEED), lambda: datetime.now(UTC))
        for symbol in SYMBOLS:
            for month in months_between(START, END):
                _keep(folder, monthly_path(Series(symbol, interval), month), files)
        done.touch()
    with running(build_app(data=folder, faults=Faults(latency=latency))) as address:
        yield address


def _keep(folder: Path, path: str, files: Files) -> None:
    content = files(path)
    if content is not None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def machine() -> str:
    """What the figures were measured on."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}, {platform.system()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def report(description: str, figures: Mapping[str, object], options: argparse.Namespace) -> None:
    """Print figures: as JSON alone, or a line each."""
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{description}\n{machine()}")
    for name, value in figures.items():
        print(f"  {name:<28} {value}")


def options(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser
