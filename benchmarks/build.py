"""Building: dbt over three symbols x 5m x 2020-2025 with all derived intervals, and through Dagster.

`wall_s` is the whole command `klinehouse build`, dbt's start and publishing included. `indicators_vs_pandas` is the
time of the main model by the time of the usual pandas `ewm` and `rolling` code over the same rows (all intervals), both
in this run; the model also rolls up and writes. `increment_ratio_6y_vs_1y` is one more day on six years by one more day
on one year (median of three each). `backfill_wall_s` is the whole command `klinehouse backfill` on an empty home,
landing included.
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd

from benchmarks.measuring import END, START, SYMBOLS, klinehouse, measured, options, ready_archive, report

DAY = ("--start", "2025-12-30", "--end", "2025-12-31")
REPEATS = 3


def build() -> dict[str, object]:
    with ready_archive("5m") as address, tempfile.TemporaryDirectory() as folder:
        settings = {"KLINEHOUSE_ARCHIVE_URL": address, "KLINEHOUSE_SYMBOLS": ",".join(SYMBOLS)}
        six = settings | {"KLINEHOUSE_HOME": f"{folder}/six"}
        one = settings | {"KLINEHOUSE_HOME": f"{folder}/one"}
        _land(six, START)
        _land(one, date(END.year - 1, 1, 1))
        whole = measured(klinehouse("build", "--json"), six)
        model_s = _model_seconds(Path(folder) / "six")
        measured(klinehouse("build", "--json"), one)
        increments = {name: _increment(home) for name, home in (("six", six), ("one", one))}
        pandas_s = _pandas_seconds(Path(folder) / "six")
        through_dagster = measured(
            klinehouse("backfill", "--json", "--start", START.isoformat(), "--end", END.isoformat()),
            settings | {"KLINEHOUSE_HOME": f"{folder}/backfill"},
        )
    return {
        "rows": json.loads(whole.stdout)["rows"],
        "wall_s": whole.wall_s,
        "cpu_s": whole.cpu_s,
        "peak_rss_mb": whole.peak_rss_mb,
        "model_s": round(model_s, 2),
        "pandas_s": round(pandas_s, 2),
        "indicators_vs_pandas": round(model_s / pandas_s, 2),
        "increment_6y_s": round(increments["six"], 2),
        "increment_1y_s": round(increments["one"], 2),
        "increment_ratio_6y_vs_1y": round(increments["six"] / increments["one"], 3),
        "backfill_wall_s": through_dagster.wall_s,
    }


def _land(settings: dict[str, str], start: date) -> None:
    measured(klinehouse("land", "--json", "--start", start.isoformat(), "--end", END.isoformat()), settings)


def _increment(settings: dict[str, str]) -> float:
    return statistics.median(measured(klinehouse("build", "--json", *DAY), settings).wall_s for _ in range(REPEATS))


def _model_seconds(home: Path) -> float:
    """What dbt itself says that the main model took in the last run."""
    results = json.loads((home / "dbt" / "run_results.json").read_text())["results"]
    return float(next(one["execution_time"] for one in results if one["unique_id"].endswith("market_data_unified")))


def _pandas_seconds(home: Path) -> float:
    """The usual code over the closes of the warehouse, series by series; reading them is not counted."""
    with duckdb.connect(home / "warehouse" / "klinehouse.duckdb", read_only=True) as connection:
        frame = connection.sql(
            """select symbol, "interval", close from crypto_analytics.market_data_unified
            order by symbol, "interval", open_time"""
        ).df()
    series = [group["close"].reset_index(drop=True) for _, group in frame.groupby(["symbol", "interval"])]
    begin = time.perf_counter()
    for close in series:
        usual_pandas(close)
    return time.perf_counter() - begin


def usual_pandas(close: "pd.Series[float]") -> pd.DataFrame:
    """The eight indicators as they are usually written (they are not TA-Lib's: `ewm` is seeded differently)."""
    change = close.diff()
    gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    loss = (-change.clip(upper=0)).ewm(alpha=1 / 14, adjust=False).mean()
    macd = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    middle = close.rolling(20).mean()
    deviation = close.rolling(20).std(ddof=0)
    return pd.DataFrame(
        {
            "sma_20": middle,
            "ema_50": close.ewm(span=50, adjust=False).mean(),
            "rsi_14": 100 - 100 / (1 + gain / loss),
            "macd": macd,
            "macd_signal": macd.ewm(span=9, adjust=False).mean(),
            "bb_upper": middle + 2 * deviation,
            "bb_lower": middle - 2 * deviation,
        }
    )


def main() -> None:
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    chosen = parser.parse_args()
    report("Building", build(), chosen)


if __name__ == "__main__":
    main()
