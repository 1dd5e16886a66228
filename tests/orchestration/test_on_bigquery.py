"""The definitions where the target is BigQuery: another graph, its resources, and runs of bounded size."""

import json
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.definitions.partitions.partition_key_range import PartitionKeyRange
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster_gcp import BigQueryResource, GCSResource
from google.cloud import bigquery, storage
from support.asset_graph import describe
from support.homes import home

from ingestion.klines import Month
from ingestion.settings import Settings
from orchestration import serving
from orchestration.definitions import build_defs
from orchestration.google import resources
from orchestration.history import raw_klines_asset
from orchestration.live import LIVE_KLINES
from orchestration.partitions import PartitionSpace
from orchestration.schedules import HEALTH, PUBLISH
from orchestration.symbols import RAW_SYMBOLS
from orchestration.warehouse_assets import BARS

SNAPSHOT = Path(__file__).with_name("asset_graph.bigquery.json")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    raw = {"target": "bigquery", "raw_url": "gs://bucket/lake/raw", "bigquery_project": "project"}
    return home(tmp_path_factory.mktemp("home"), start="2024-01-01", **raw)


@pytest.fixture(scope="module")
def defs(settings: Settings) -> dg.Definitions:
    """Loaded without a network, and without a client of Google's."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("Loading the definitions asks nobody.")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        patched.setattr(socket, "getaddrinfo", refuse)
        for client in (bigquery.Client, storage.Client):
            patched.setattr(client, "__init__", refuse)
        return build_defs(settings)


def test_the_asset_graph_is_as_recorded(defs: dg.Definitions) -> None:
    """After a change on purpose, write what this test prints to asset_graph.bigquery.json."""
    described = describe(defs)
    assert described == json.loads(SNAPSHOT.read_text()), json.dumps(described, indent=1)


def test_there_are_no_serving_files(defs: dg.Definitions) -> None:
    keys = defs.resolve_asset_graph().get_all_asset_keys()
    assert serving.SERVING not in keys
    dimensions = defs.resolve_job_def(PUBLISH).asset_layer.executable_asset_keys
    without = {node.key for node in defs.resolve_asset_graph().asset_nodes if node.partitions_def is None}
    assert dimensions == without - {RAW_SYMBOLS, LIVE_KLINES}


def test_that_bars_arrive_is_checked_where_readers_read_them(defs: dg.Definitions) -> None:
    assert defs.resolve_job_def(HEALTH).asset_layer.get_op_output_handle(dg.AssetCheckKey(BARS, "arriving"))


def test_only_bigquery_has_the_sensor_of_raw_objects_and_googles_resources(
    defs: dg.Definitions, tmp_path: Path
) -> None:
    local = build_defs(home(tmp_path))
    assert "raw_objects" not in {sensor.name for sensor in local.sensors or ()}
    assert (local.resources or {}).keys() == {"lander"}
    assert "raw_objects" in {sensor.name for sensor in defs.sensors or ()}
    assert isinstance((defs.resources or {})["bigquery"], BigQueryResource)
    assert isinstance((defs.resources or {})["gcs"], GCSResource)


def test_on_duckdb_no_process_of_dagster_loads_googles_libraries() -> None:
    """Each would take most of a second longer to begin."""
    program = "import sys, orchestration.definitions; print([name for name in ('dagster_gcp', 'google.cloud.bigquery', "
    program += "'google.cloud.storage', 'google.cloud.pubsub_v1') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_clients_of_the_warehouse_bound_what_a_query_reads(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    with resources(settings)["bigquery"].get_client() as client:
        assert (client.project, client.location) == ("project", "EU")
        assert client.default_query_job_config.maximum_bytes_billed == 1024 << 30
        assert client.default_query_job_config.labels == {"app": "klinehouse"}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("gs://bucket/lake/raw/", ("bucket", "lake/raw")),
        ("gcs://bucket", ("bucket", "")),
        ("/some/folder", None),
        ("s3://bucket/raw", None),
        ("", None),
    ],
)
def test_only_google_cloud_storage_has_a_bucket(tmp_path: Path, url: str, place: tuple[str, str] | None) -> None:
    assert home(tmp_path, raw_url=url).raw_bucket == place


@pytest.mark.parametrize(("symbols", "most", "runs"), [(3, 120, 3), (120, 24, 550)])
def test_a_backfill_is_cut_into_runs_of_bounded_size(settings: Settings, symbols: int, most: int, runs: int) -> None:
    """110 months of each symbol: of few symbols a run has one whole, of many it has a month of many.

    600 symbols by 120 are cut as 120 by 24 are, and that takes this test 18 s."""
    settings = settings.model_copy(update={"run_partitions": most})
    space = PartitionSpace(Month(2015, 1), tuple(f"S{number:03}USDT" for number in range(symbols)))
    asset = raw_klines_asset(settings, space)
    partitions = space.months_by_symbol()
    last = dg.MultiPartitionKey({"month": "2024-02", "symbol": space.symbols[-1]})
    first = dg.MultiPartitionKey({"month": "2015-01", "symbol": space.symbols[0]})
    asked = partitions.get_partition_keys_in_range(PartitionKeyRange(first, last))
    requests = build_run_requests_with_backfill_policies(
        [AssetKeyPartitionKey(asset.key, key) for key in asked],
        dg.Definitions(assets=[asset], resources={"lander": object()}).resolve_asset_graph(),
        dg.DagsterInstance.ephemeral(),
    )
    sizes, landed = [], Counter[str]()
    for request in requests:
        ends = (request.tags[tag] for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG))
        keys = partitions.get_partition_keys_in_range(PartitionKeyRange(*ends))
        sizes.append(len(keys))
        landed.update(map(str, keys))
    assert (len(sizes), max(sizes) <= most) == (runs, True)
    assert landed == Counter(map(str, asked))


def test_one_machine_takes_a_backfill_in_one_run(settings: Settings, tmp_path: Path) -> None:
    space = PartitionSpace(Month(2024, 1), settings.symbols)
    assert raw_klines_asset(home(tmp_path), space).backfill_policy == dg.BackfillPolicy.single_run()


def test_bars_are_built_in_one_run_because_bigquery_does_the_work(defs: dg.Definitions) -> None:
    assert defs.resolve_asset_graph().get(BARS).backfill_policy == dg.BackfillPolicy.single_run()


@pytest.mark.parametrize("there", [True, False])
def test_readers_see_something_once_there_are_bars_to_read(
    settings: Settings, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("warehouse.bigquery.client.BigQuery.has_table", lambda *names: there)
    assert serving.is_published(settings) is there
