"""Assets, checks and the sensor where the target is BigQuery, on emulators of BigQuery and of Google Cloud Storage.

Two builds take the emulator a minute, so all of it is one test.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
from support import bigquery_emulator, object_store
from support.homes import home, put, random_walk
from support.object_store import BUCKET

from ingestion.klines import Series
from ingestion.settings import Settings
from orchestration import arrivals, serving
from orchestration.definitions import build_defs
from orchestration.google import resources
from orchestration.partitions import current_partition_space
from orchestration.schedules import BUILD, PUBLISH
from orchestration.warehouse_assets import BARS

pytestmark = pytest.mark.bigquery

_PYTHON = os.environ.get("KLINEHOUSE_TEST_BIGQUERY")  # read before fixtures clear the environment
SERIES = Series("BTCUSDT", "1h")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home whose raw zone has January and half of February 2024 of one symbol, put there by other hands."""
    reason = object_store.unavailable()
    if reason:
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("google")
    with (
        object_store.running(path / "objects") as store,
        bigquery_emulator.running(str(_PYTHON), path / "bigquery", path / "objects") as emulator,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in {**emulator.environment, object_store.EMULATOR: store.address}.items():
            patched.setenv(name, value)
        given = {"target": "bigquery", "raw_url": f"gs://{BUCKET}/raw", "bigquery_project": bigquery_emulator.PROJECT}
        found = home(path / "home", symbols="BTCUSDT", interval="1h", start="2024-01-01", **given)
        put(found, SERIES, random_walk(SERIES, datetime(2024, 1, 1, tzinfo=UTC), 24 * 45))
        yield found


@pytest.fixture(scope="module")
def environment(settings: Settings) -> dict[str, str]:
    """What the module's settings have put into the environment; another fixture clears it for each test."""
    names = ("BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST", object_store.EMULATOR)
    return {name: os.environ[name] for name in names}


@pytest.fixture(autouse=True)
def emulated(clean_environment: None, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_objects_by_other_hands_are_reported_built_and_described(settings: Settings) -> None:
    (sensor,) = arrivals.sensors(settings, current_partition_space(settings))
    with dg.DagsterInstance.ephemeral() as instance:
        assert not serving.is_published(settings)
        context = dg.build_sensor_context(instance, resources={"gcs": resources(settings)["gcs"]})
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        assert [str(getattr(event, "partition", None)) for event in result.asset_events] == [
            "2024-01|BTCUSDT",
            "2024-02|BTCUSDT",
        ]

        defs = build_defs(settings)
        tags = {"dagster/asset_partition_range_start": "2024-01", "dagster/asset_partition_range_end": "2024-02"}
        run = defs.resolve_job_def(BUILD).execute_in_process(instance=instance, tags=tags)
        told = {
            event.partition: event.materialization.metadata
            for event in run.get_asset_materialization_events()
            if event.asset_key == BARS
        }
        rows = {key: metadata["dagster/partition_row_count"].value for key, metadata in told.items()}
        # Hours, four hours and days of 31 and of 14 days.
        assert rows == {"2024-01": 31 * 31, "2024-02": 14 * 31}
        assert "data:image/png;base64," in str(told["2024-02"]["chart"].value)
        checks = {check.check_name: check.passed for check in run.get_asset_check_evaluations()}
        assert (checks["complete"], checks["fresh"]) == (True, False)
        assert serving.is_published(settings)

        run = defs.resolve_job_def(PUBLISH).execute_in_process(instance=instance)
        counted = {
            event.asset_key.to_user_string(): event.materialization.metadata["dagster/row_count"].value
            for event in run.get_asset_materialization_events()
            if event.asset_key is not None
        }
        assert (counted["dim_symbols"], counted["klines_gaps"]) == (1, 0)
