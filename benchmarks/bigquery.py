"""BigQuery's target on its emulator, from a bucket: three symbols x 5m x 2020-2025, 1.83 M rows (SOLUSDT begins in
August 2020).

    land_s           archive to bucket (fake-gcs-server), rows_landed
    build_s          load jobs, then all models and their tests, from nothing
    increment_s      `klinehouse build` of the last day once more
    append_s         one bar, until the Storage Write API has acknowledged it (median of 60)
    read_live_s      the newest bars with their indicators through market_data_live (median of 5)
    parity_s         rows_compared, those of the last quarter in every mart, with a build on DuckDB of the same bucket
    *_client_mb      largest memory of our own processes; emulator_mb of the emulator

The emulator's time is not BigQuery's: it computes on this machine, in DuckDB, and polls jobs as BigQuery's client does.
What the figures tell of is the memory of our own processes, and that all of it works on so many rows.
"""

import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measuring import END, ROOT, START, SYMBOLS, Cost, klinehouse, measured, options, ready_archive, report
from ingestion.klines import Series
from ingestion.settings import load_settings

STAND_INS = ROOT / ".venv-bigquery" / "bin" / "python"
os.environ.setdefault("KLINEHOUSE_TEST_BIGQUERY", str(STAND_INS))

from tests.support import bigquery_emulator, object_store  # noqa: E402 - they look for the variable when imported
from tests.support.homes import random_walk  # noqa: E402 - as before
from tests.support.streamed import streamed  # noqa: E402 - as before

APPENDS, READS = 20, 5
NEWEST = """select symbol, max_by(ema_50, open_time) from market_data_live
    where open_time >= timestamp '2025-12-31 00:00:00+00' group by symbol"""


def bigquery() -> dict[str, object]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ready_archive("5m") as address,
        object_store.running(Path(folder, "objects")) as store,
        bigquery_emulator.running(str(STAND_INS), Path(folder, "emulator"), Path(folder, "objects")) as emulator,
    ):
        environment = emulator.environment | {
            "STORAGE_EMULATOR_HOST": store.address,
            "KLINEHOUSE_HOME": str(Path(folder, "home")),
            "KLINEHOUSE_RAW_URL": f"gs://{object_store.BUCKET}/raw",
            "KLINEHOUSE_ARCHIVE_URL": address,
            "KLINEHOUSE_SYMBOLS": ",".join(SYMBOLS),
            "KLINEHOUSE_BIGQUERY_QUERY_GB": "1000",
        }
        os.environ.update(environment)
        return _figures(environment, emulator.pid)


def _figures(environment: dict[str, str], emulator: int) -> dict[str, object]:
    span = ("--start", START.isoformat(), "--end", END.isoformat())
    day = END - timedelta(days=1)
    land = measured(klinehouse("land", "--json", *span), environment)
    build = measured(klinehouse("build", "--json", *span), environment)
    increment = measured(
        klinehouse("build", "--json", "--start", day.isoformat(), "--end", END.isoformat()), environment
    )
    measured(klinehouse("build", "--json", *span), environment | {"KLINEHOUSE_TARGET": "duckdb"})
    quarter = ("--start", f"{day.year}-10-01", "--end", END.isoformat())
    parity = measured(klinehouse("parity", "--json", *quarter), environment)
    marts = json.loads(parity.stdout)["marts"]
    return {
        "rows_landed": sum(one["rows"] for one in json.loads(land.stdout)["series"]),
        **_cost("land", land),
        **_cost("build", build),
        **_cost("increment", increment),
        **_cost("parity", parity),
        "rows_compared": sum(mart["rows_duckdb"] for mart in marts),
        "differing_rows": sum(mart["only_duckdb"] + mart["only_bigquery"] + mart["unequal"] for mart in marts),
        "largest_difference": max(mart["largest_difference"] for mart in marts),
        **_live(),
        "emulator_mb": _peak_mb(emulator),
    }


def _cost(name: str, cost: Cost) -> dict[str, object]:
    return {f"{name}_s": cost.wall_s, f"{name}_client_mb": cost.peak_rss_mb}


def _live() -> dict[str, object]:
    from warehouse.bigquery.append import Appender
    from warehouse.serving import run_query

    settings = load_settings()
    newest = datetime(END.year, END.month, END.day, tzinfo=UTC)
    appends, reads = [], []
    with Appender(settings.bigquery_project) as appender:
        for number in range(APPENDS):
            opened = newest + number * timedelta(minutes=5)
            for symbol in SYMBOLS:
                begin = time.perf_counter()
                appender.append(streamed(random_walk(Series(symbol, "5m"), opened, 1, seed=number)))
                appends.append(time.perf_counter() - begin)
    for _ in range(READS):
        begin = time.perf_counter()
        run_query(settings, NEWEST)
        reads.append(time.perf_counter() - begin)
    return {"append_s": round(statistics.median(appends), 3), "read_live_s": round(statistics.median(reads), 3)}


def _peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


if __name__ == "__main__":
    arguments = options(__doc__ or "").parse_args()
    report("BigQuery's emulator", bigquery(), arguments)
