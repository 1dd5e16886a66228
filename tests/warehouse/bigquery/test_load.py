"""A load job's name says what it loads, so that the same rows are loaded once."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from google.api_core.exceptions import BadRequest, Conflict

from ingestion.klines import KLINE_SCHEMA
from warehouse.bigquery.client import BigQuery, WarehouseUnavailable
from warehouse.bigquery.load import Superseded, in_one_transaction, load_files, load_rows

FILES = [("gs://bucket/raw/a.parquet", "1"), ("gs://bucket/raw/b.parquet", "1")]
ROWS = pa.table({"symbol": ["BTCUSDT"]})


@dataclass
class Client:
    """In the place of BigQuery's client: remembers the jobs, of which some fail."""

    failing: set[str] = field(default_factory=set)
    jobs: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)

    def load_table_from_uri(self, source: list[str], destination: str, *, job_id: str, job_config: Any) -> Any:
        if job_id in self.jobs:
            raise Conflict(f"Already Exists: Job a-project:EU.{job_id}")
        self.sources.append(source)
        self.jobs[job_id] = SimpleNamespace(result=lambda: self._end(job_id))
        return self.jobs[job_id]

    def load_table_from_file(self, source: Any, destination: str, *, job_id: str, job_config: Any) -> Any:
        return self.load_table_from_uri([source.read()], destination, job_id=job_id, job_config=job_config)

    def _end(self, job_id: str) -> None:
        if job_id in self.failing:
            raise BadRequest("Error while reading data")

    def get_job(self, job_id: str) -> Any:
        self.asked.append(job_id)
        return self.jobs[job_id]

    def get_table(self, name: str) -> Any:
        return SimpleNamespace()

    def update_table(self, table: Any, fields: list[str]) -> None: ...


def loaded(client: Client, files: list[tuple[str, str]]) -> str:
    warehouse = cast("BigQuery", SimpleNamespace(project="a-project", client=client))
    return load_files(warehouse, files, KLINE_SCHEMA)


def test_the_same_files_are_one_job_in_whatever_order() -> None:
    client = Client()
    assert loaded(client, FILES) == loaded(client, FILES[::-1])
    assert len(client.jobs) == 1
    assert client.asked == list(client.jobs)


def test_another_version_of_a_file_is_another_job() -> None:
    client = Client()
    assert loaded(client, FILES) != loaded(client, [FILES[0], (FILES[1][0], "2")])
    assert len(client.jobs) == 2
    assert client.asked == []


def test_the_same_rows_are_one_job() -> None:
    client = Client()
    warehouse = cast("BigQuery", SimpleNamespace(project="a-project", client=client))
    assert load_rows(warehouse, ROWS) == load_rows(warehouse, ROWS)
    assert load_rows(warehouse, ROWS) != load_rows(warehouse, pa.table({"symbol": ["ETHUSDT"]}))
    assert len(client.jobs) == 2


def test_a_job_that_failed_is_done_again_under_another_name() -> None:
    client = Client()
    name = loaded(client, FILES)
    client.failing, client.jobs = {f"klinehouse_{name}"}, {}
    assert loaded(client, FILES) == name
    assert list(client.jobs) == [f"klinehouse_{name}", f"klinehouse_{name}_1"]


def test_a_job_that_fails_each_time_is_told() -> None:
    client = Client()
    name = loaded(client, FILES)
    client.failing = {f"klinehouse_{name}", *(f"klinehouse_{name}_{attempt}" for attempt in range(10))}
    with pytest.raises(WarehouseUnavailable, match="Error while reading data"):
        loaded(client, FILES)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("klinehouse: loaded meanwhile", Superseded),
        ("Unrecognized name: nope", WarehouseUnavailable),
    ],
)
def test_a_transaction_that_others_were_before_can_be_told_from_one_that_is_wrong(said: str, kind: type) -> None:
    def run(script: str, parameters: Any, *, purpose: str) -> None:
        assert script.startswith("begin transaction;\nupdate crypto_raw.transactions ")
        assert script.endswith(";\nselect 1;\ncommit transaction;")
        raise WarehouseUnavailable(f"BigQuery refused {purpose}: {said}", "")

    with pytest.raises(WarehouseUnavailable) as caught:
        in_one_transaction(cast("BigQuery", SimpleNamespace(run=run)), ["select 1"], [], "load")
    assert type(caught.value) is kind
