"""dbt in Dagster's own process: what it did is recorded, also when it fails."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pyarrow as pa
from support.homes import home, put, random_walk

from ingestion.klines import Series
from orchestration.definitions import build_defs
from orchestration.schedules import BUILD
from orchestration.warehouse_assets import BARS


def test_a_check_that_fails_is_recorded_with_its_bars_and_ends_the_run(tmp_path: Path) -> None:
    settings = home(tmp_path, symbols="BTCUSDT", interval="1h", start="2024-01-01")
    series = Series("BTCUSDT", "1h")
    klines = random_walk(series, datetime(2024, 1, 1, tzinfo=UTC), 48)
    rows = klines.to_pylist()
    rows[30]["low"] = Decimal(10_000)
    put(settings, series, pa.Table.from_pylist(rows, schema=klines.schema))

    with dg.DagsterInstance.ephemeral() as instance:
        job = build_defs(settings).resolve_job_def(BUILD)
        run = job.execute_in_process(instance=instance, partition_key="2024-01", raise_on_error=False)
        assert not run.success
        (failure,) = run.filter_events(lambda event: event.is_step_failure)
        assert "market_data_unified_ohlc_rules" in str(failure.step_failure_data.error)
        found = {check.check_name: check.passed for check in run.get_asset_check_evaluations()}
        assert not found["market_data_unified_ohlc_rules"]
        assert found["market_data_unified_one_row_per_bar"]
        (bars,) = instance.fetch_materializations(BARS, limit=5).records
        assert bars.partition_key == "2024-01"
