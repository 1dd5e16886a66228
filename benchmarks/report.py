"""Runs the benchmarks and writes docs/benchmarks.md and the figures of docs/indicators; with `live` those of the live
path, in docs/benchmarks-live.md, with `bigquery` those on BigQuery's emulator, in docs/benchmarks-bigquery.md."""

import sys
from datetime import UTC, datetime

from benchmarks import bigquery, build, bus, chaos, collector, history, indicators, live, queries
from benchmarks.measuring import ROOT, machine

HEADER = """# Benchmarks{title}

Written by `{command}`; do not edit. Measured on {machine}, {day}. Data: the simulated exchange, seed 1{data}. Other
machines have other times; ratios hold better.
"""
HISTORY = ", three symbols at 5m, 2020 to 2025"
BAR = "#"


def header(title: str, command: str, data: str) -> str:
    return HEADER.format(title=title, command=command, machine=machine(), day=datetime.now(UTC).date(), data=data)


def table(title: str, explanation: str, figures: dict[str, object]) -> str:
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in figures.items())
    return f"\n## {title}\n\n{explanation.strip()}\n\n| figure | value |\n|---|---|\n{rows}\n"


def histogram(lags: dict[str, int]) -> str:
    """A bar for each class of latencies, of 60 characters for all of them together."""
    total = max(sum(lags.values()), 1)
    lines = [f"{name:>12} {count:6} {BAR * round(60 * count / total)}" for name, count in lags.items()]
    return "\n```\n" + "\n".join(lines) + "\n```\n"


def write(name: str, text: str) -> None:
    (ROOT / "docs" / name).write_text(text)
    print(text)


def of_history() -> None:
    text = header("", "make bench", HISTORY)
    text += table("`benchmarks/history.py`", history.__doc__ or "", history.history())
    text += table("`benchmarks/build.py`", build.__doc__ or "", build.build())
    text += table("`benchmarks/queries.py`", queries.__doc__ or "", queries.queries())
    write("benchmarks.md", text)
    indicators.write(indicators.indicators())


def of_live() -> None:
    text = header(": live", "make bench-live", ", 5m bars")
    figures, lags = live.live(closes=1000, series=3)
    text += table("`benchmarks/live.py`, three series", live.__doc__ or "", figures) + histogram(lags)
    hundred = live.many(closes=2000, series=100)
    text += table("`benchmarks/live.py`, a hundred series", "As before, on a month of history.", hundred)
    text += table("`benchmarks/bus.py`", bus.__doc__ or "", bus.bus())
    text += table("`benchmarks/chaos.py`", chaos.__doc__ or "", chaos.chaos(chaos.Plan()))
    text += table("`benchmarks/collector.py`", collector.__doc__ or "", collector.collect(days=7, seconds=120))
    write("benchmarks-live.md", text)


def of_bigquery() -> None:
    text = header(": BigQuery's emulator", "make bench-bigquery", HISTORY)
    text += table("`benchmarks/bigquery.py`", bigquery.__doc__ or "", bigquery.bigquery())
    write("benchmarks-bigquery.md", text)


REPORTS = {"history": of_history, "live": of_live, "bigquery": of_bigquery}

if __name__ == "__main__":
    REPORTS[sys.argv[1]]()
