"""Runs every benchmark and writes docs/benchmarks.md, and the figures of docs/indicators."""

from datetime import UTC, datetime

from benchmarks import build, history, indicators, queries
from benchmarks.measuring import ROOT, machine

HEADER = """# Benchmarks

Written by `make bench`; do not edit. Measured on {machine}, {day}. Data: the simulated exchange, seed 1, three symbols
at 5m, 2020 to 2025. Other machines have other times; ratios hold better.
"""


def table(title: str, explanation: str, figures: dict[str, object]) -> str:
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in figures.items())
    return f"\n## {title}\n\n{explanation.strip()}\n\n| figure | value |\n|---|---|\n{rows}\n"


def main() -> None:
    text = HEADER.format(machine=machine(), day=datetime.now(UTC).date())
    text += table("`benchmarks/history.py`", history.__doc__ or "", history.history())
    text += table("`benchmarks/build.py`", build.__doc__ or "", build.build())
    text += table("`benchmarks/queries.py`", queries.__doc__ or "", queries.queries())
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    print(text)
    indicators.write(indicators.indicators())


if __name__ == "__main__":
    main()
