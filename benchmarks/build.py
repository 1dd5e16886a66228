"""Building: dbt over three symbols x 5m x 2020-2025 with all derived intervals, and through Dagster.

`wall_s` is the whole command `klinehouse build`, dbt's start and publishing included, and `model_s` what dbt says that
the main model took in it: reading, rolling up, indicators and writing. `increment_ratio_6y_vs_1y` is one more day on
six years by one more day on one year (median of three each). `backfill_wall_s` is the whole command
`klinehouse backfill` on an empty home, landing included.

`indicators_vs_pandas` is the time of the indicators alone by the time of the usual pandas code, in this run, on the
same bars of the base interval. Both hold symbol, interval, open_time and close in memory, put them in order, and end
with those columns and the eight indicators in a new table. SQL: the project's own macro as dbt compiles it, two
threads. pandas: `sort_values`, by series `ewm` and `rolling`, put together. The best of three each (`indicators_s,
pandas_s`), because the first run of either pays for memory. Of `pandas_s`, `pandas_math_s` is `ewm`, `rolling` and
arithmetic; the rest is sorting, splitting into series and putting together.

What bounds it: the indicators, one thread of streaming windows after one sort, and writing the result; the whole
build, dbt's imports, the model and publishing; one more day, dbt's Python alone; the backfill, landing and build. Tried
for the indicators: a window per average (a sort each, many times slower), blocked sums with partitioned windows, two
parallel branches (faster alone, the model slower), flags instead of CASE (no gain). For the rest: dbt in Dagster's own
process instead of a new one (saves its start, its version check and parsing, each run), the project parsed once for
all homes.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path

import duckdb
import pandas as pd

from benchmarks.measuring import END, START, SYMBOLS, klinehouse, measured, options, ready_archive, report
from ingestion.settings import load_settings
from warehouse import dbt

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
        indicators = _indicators(Path(folder) / "six")
        measured(klinehouse("build", "--json"), one)
        increments = {name: _increment(home) for name, home in (("six", six), ("one", one))}
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
        **indicators,
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


def _indicators(home: Path) -> dict[str, float]:
    """The project's macro in DuckDB and the usual code in pandas over the same bars; reading them is not counted."""
    warehouse = home / "warehouse" / "klinehouse.duckdb"
    with duckdb.connect() as connection:
        connection.execute("set threads = 2; set TimeZone = 'UTC'")
        connection.execute(f"attach '{warehouse}' as warehouse (read_only)")
        connection.execute(
            """create table bars as
            select symbol, "interval", open_time, close from warehouse.crypto_analytics.market_data_unified
            where "interval" = '5m' order by symbol, open_time"""
        )
        connection.execute("detach warehouse")
        macro = f"create or replace table result as {_compiled_macro(home)}"
        indicators_s = _best(lambda: connection.execute(macro))
        frame = connection.sql("from bars").df()
    pandas_s = _best(lambda: by_series(frame))
    series = [group["close"] for _, group in frame.groupby(["symbol", "interval"], sort=False)]
    pandas_math_s = _best(lambda: [usual_pandas(close) for close in series])
    return {
        "indicators_s": round(indicators_s, 3),
        "pandas_s": round(pandas_s, 3),
        "pandas_math_s": round(pandas_math_s, 3),
        "indicators_vs_pandas": round(indicators_s / pandas_s, 2),
    }


def _compiled_macro(home: Path) -> str:
    """The SQL that dbt makes of the indicators macro over a table `bars`."""
    inline = "with source as (select * from bars), {{ indicators('source') }} select * from indicators"
    settings = load_settings(home=home)
    with redirect_stdout(io.StringIO()):  # dbt prints what it compiled
        dbt.run(settings, ["compile", "--inline", inline])
    (compiled,) = (settings.home / "dbt" / "compiled").rglob("inline_query*")
    return compiled.read_text()


def _best(run: Callable[[], object]) -> float:
    def once() -> float:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    return min(once() for _ in range(REPEATS))


def by_series(bars: pd.DataFrame) -> pd.DataFrame:
    """The usual code, series by series in order of time, beside the columns that the bars came with."""
    ordered = bars.sort_values(["symbol", "interval", "open_time"], ignore_index=True)
    groups = ordered.groupby(["symbol", "interval"], sort=False)
    return ordered.join(pd.concat([usual_pandas(group["close"]) for _, group in groups]))


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
            "bb_middle": middle,
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
