"""The asset graph: its keys, dependencies and partitions change only on purpose."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from support.asset_graph import describe
from support.homes import home

from ingestion.history.month import MonthResult, Outcome
from ingestion.klines import Month, Series
from ingestion.settings import Settings
from orchestration.definitions import build_defs
from orchestration.history import HistoryLander
from orchestration.live import LIVE_KLINES
from orchestration.schedules import LAND, PUBLISH
from orchestration.symbols import RAW_SYMBOLS

TABLES = (
    *("raw_klines", "raw_symbols", "market_data_unified", "dim_symbols", "dim_dates", "dim_hours"),
    *("klines_gaps", "klines_reconciliation"),
)
SNAPSHOT = Path(__file__).with_name("asset_graph.json")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return home(tmp_path_factory.mktemp("home"), start="2024-01-01")


@pytest.fixture(scope="module")
def defs(settings: Settings) -> dg.Definitions:
    return build_defs(settings)


def test_the_asset_graph_is_as_recorded(defs: dg.Definitions) -> None:
    """After a change on purpose, write what this test prints to asset_graph.json."""
    described = describe(defs)
    assert described == json.loads(SNAPSHOT.read_text()), json.dumps(described, indent=1)


def test_a_month_of_bars_depends_on_that_month_of_every_symbol(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    bars = graph.get(dg.AssetKey("market_data_unified"))
    mapping = bars.partition_mappings[dg.AssetKey("raw_klines")]
    assert isinstance(mapping, dg.MultiToSingleDimensionPartitionMapping)
    assert mapping.partition_dimension_name == "month"


def test_every_asset_is_described_owned_and_of_a_kind(defs: dg.Definitions) -> None:
    for spec in defs.resolve_all_asset_specs():
        name = spec.key.to_user_string()
        assert spec.description, name
        assert spec.owners == ["team:market-data"], name
        assert spec.kinds, name


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_a_schema_with_every_column_described(defs: dg.Definitions, name: str) -> None:
    (spec,) = (spec for spec in defs.resolve_all_asset_specs() if spec.key == dg.AssetKey(name))
    schema = spec.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert len(schema.columns) >= 2
    if not name.startswith("raw_"):
        assert all(column.description for column in schema.columns)


def test_the_daily_refresh_asks_for_two_months_of_each_symbol(defs: dg.Definitions) -> None:
    (schedule,) = (schedule for schedule in defs.schedules or () if schedule.name == "refresh_history")
    assert isinstance(schedule, dg.ScheduleDefinition)
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2024, 3, 1, 9, 15, tzinfo=UTC))
    requests = list(schedule(context))
    assert sorted(str(request.partition_key) for request in requests) == [
        f"{month}|{symbol}" for month in ("2024-02", "2024-03") for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    ]


def test_schedules_run_after_the_archive_has_its_files_and_dimensions_at_ten_past_midnight(
    defs: dg.Definitions,
) -> None:
    crons = {schedule.name: schedule.cron_schedule for schedule in defs.schedules or ()}
    assert crons == {
        "refresh_history": "15 9 * * *",
        "refresh_dimensions": "10 0 * * *",
        "refresh_health": "45 9 * * *",
        "refresh_symbols": "0 6 1 * *",
    }


def test_publishing_builds_everything_without_partitions_first(defs: dg.Definitions) -> None:
    without = {node.key for node in defs.resolve_asset_graph().asset_nodes if node.partitions_def is None}
    assert defs.resolve_job_def(PUBLISH).asset_layer.executable_asset_keys == without - {RAW_SYMBOLS, LIVE_KLINES}


class FakeLander(HistoryLander):
    """Lands nothing and remembers what it was asked."""

    asked: list[tuple[list[Series], list[Month]]]

    def land(self, series: Sequence[Series], months: Sequence[Month]) -> list[MonthResult]:
        self.asked.append((list(series), list(months)))
        return [MonthResult(one, month, Outcome.LANDED, rows=7) for one in series for month in months]


def test_resources_can_be_replaced(settings: Settings) -> None:
    fake = FakeLander(settings)
    fake.asked = []
    job = build_defs(settings, {"lander": fake}).resolve_job_def(LAND)
    result = job.execute_in_process(partition_key="2024-02|ETHUSDT", instance=dg.DagsterInstance.ephemeral())
    (event,) = result.asset_materializations_for_node("raw_klines")
    assert fake.asked == [([Series("ETHUSDT", "5m")], [Month(2024, 2)])]
    assert event.metadata["dagster/partition_row_count"].value == 7
