"""Exactness: the largest difference of each indicator from TA-Lib, over every bar of two sets of data.

`simulated` is three symbols x 5m, 15m, 1h, 4h, 1d x 2020-2025 of the simulated exchange. `recorded` is what the real
exchange answered (KLINEHOUSE_TEST_DATA): BTCUSDT 5m of seven months from its archive with all derived intervals, and
15m, 1h and 1d of three symbols from its REST interface, outages included; it is left out where that folder is not
given. `absolute` is in the indicator's own unit, `relative` a fraction of TA-Lib's value; MACD and its signal cross
zero, so theirs is a fraction of the close. `--write` puts the figures into docs/indicators.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np

from benchmarks.measuring import END, ROOT, START, SYMBOLS, klinehouse, measured, options, ready_archive, report
from ingestion.klines import Series
from ingestion.settings import load_settings
from ingestion.simulator.server import build_app, running
from tests.support.homes import put, rest_klines
from tests.support.oracles import INDICATORS, Floats, talib_indicators

PAGES = ROOT / "docs" / "indicators"
RECORDED_INTERVALS = ("15m", "1h", "1d")


@dataclass
class Differences:
    """The largest differences from TA-Lib so far, by indicator, and over how many bars."""

    bars: int = 0
    absolute: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INDICATORS, 0.0))
    relative: dict[str, float] = field(default_factory=lambda: dict.fromkeys(INDICATORS, 0.0))

    def add(self, close: Floats, actual: Mapping[str, Floats]) -> None:
        """Compare one series; ends the program where one has a value and the other has none."""
        self.bars += len(close)
        for name, expected in talib_indicators(close).items():
            known = ~np.isnan(expected)
            if not np.array_equal(known, ~np.isnan(actual[name])):
                raise SystemExit(f"{name} is not NULL in the same rows as TA-Lib's.")
            difference = np.abs(actual[name] - expected)[known]
            scale = (close if name.startswith("macd") else np.abs(expected))[known]
            # Where TA-Lib says 0 exactly (an RSI without gains), only 0 is no difference.
            share = np.divide(difference, scale, out=np.where(difference > 0, np.inf, 0.0), where=scale > 0)
            self.absolute[name] = max(self.absolute[name], float(difference.max(initial=0.0)))
            self.relative[name] = max(self.relative[name], float(share.max(initial=0.0)))

    def figures(self) -> dict[str, str]:
        return {
            name: f"{self.absolute[name]:.1e} absolute, {self.relative[name]:.1e} relative, {self.bars:,} bars"
            for name in INDICATORS
        }


def indicators() -> dict[str, dict[str, str]]:
    """By set of data and indicator, the largest differences."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"simulated": _differences(_simulated(Path(folder) / "simulated"))}
        data = os.environ.get("KLINEHOUSE_TEST_DATA")
        if data:
            found["recorded"] = _differences(_recorded(Path(data), Path(folder) / "recorded"))
    return {name: differences.figures() for name, differences in found.items()}


def _simulated(home: Path) -> list[Path]:
    with ready_archive("5m") as address:
        _land(home, address, *SYMBOLS)
    _build(home, "5m")
    return [home]


def _recorded(data: Path, homes: Path) -> list[Path]:
    with running(build_app(data=data)) as address:
        _land(homes / "5m", address, "BTCUSDT")
    for interval in RECORDED_INTERVALS:
        settings = load_settings(home=homes / interval, interval=interval)
        for symbol in SYMBOLS:
            series = Series(symbol, interval)
            put(settings, series, rest_klines(data / "rest" / symbol / interval, series))
    for interval in ("5m", *RECORDED_INTERVALS):
        _build(homes / interval, interval)
    return [homes / interval for interval in ("5m", *RECORDED_INTERVALS)]


def _land(home: Path, address: str, *symbols: str) -> None:
    settings = {"KLINEHOUSE_HOME": str(home), "KLINEHOUSE_ARCHIVE_URL": address}
    window = ("--start", START.isoformat(), "--end", END.isoformat())
    measured(klinehouse("land", "--json", "--symbols", ",".join(symbols), *window), settings)


def _build(home: Path, interval: str) -> None:
    measured(klinehouse("build", "--json"), {"KLINEHOUSE_HOME": str(home), "KLINEHOUSE_INTERVAL": interval})


def _differences(homes: Iterable[Path]) -> Differences:
    found = Differences()
    for home in homes:
        with duckdb.connect(home / "warehouse" / "klinehouse.duckdb", read_only=True) as connection:
            frame = connection.sql(
                f"""select symbol, "interval", close, {", ".join(INDICATORS)}
                from crypto_analytics.market_data_unified order by symbol, "interval", open_time"""
            ).df()
        for _, bars in frame.groupby(["symbol", "interval"]):
            found.add(bars["close"].to_numpy(), {name: bars[name].to_numpy() for name in INDICATORS})
    return found


def write(figures: Mapping[str, Mapping[str, str]]) -> None:
    """Put figures into their lines of the pages; lines of data that was not measured stay as they are."""
    for page in PAGES.glob("*.md"):
        text = page.read_text()
        for data, by_name in figures.items():
            for name, value in by_name.items():
                text = re.sub(rf"^- `{name}`, {data}: .*$", f"- `{name}`, {data}: {value}", text, flags=re.MULTILINE)
        page.write_text(text)


def main() -> None:
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true", help="also put the figures into docs/indicators")
    chosen = parser.parse_args()
    figures = indicators()
    report("Exactness", figures if chosen.json else _flat(figures), chosen)
    if chosen.write:
        write(figures)


def _flat(figures: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {f"{data} {name}": value for data, by_name in figures.items() for name, value in by_name.items()}


if __name__ == "__main__":
    main()
