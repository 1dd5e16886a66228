"""Commands on a raw zone that lies on an object store."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import answer, run
from support.object_store import BUCKET, EMULATOR, ObjectStore
from support.raw_zones import all_files, empty_root
from support.storage_front import Front, front

from ingestion.simulator.server import build_app, running

pytestmark = pytest.mark.bigquery

LAND = ("land", "--start", "2024-01", "--end", "2024-03")


@pytest.fixture
def store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    with front(object_store.port) as found:
        monkeypatch.setenv(EMULATOR, found.address)
        yield found


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[dict[str, str]]:
    with running(build_app(seed=1)) as exchange:
        series = {"archive_url": exchange, "symbols": "BTCUSDT", "interval": "1h", "start": "2024-01-01"}
        yield {"home": str(tmp_path / "home"), "raw_url": empty_root(), **series}


def requests(store: Front) -> Counter[str]:
    """The requests since the last time: looks at months, other looks, and what was written."""
    found = Counter(
        "written" if method == "POST" else "months" if "2024-0" in path else "others" for method, path in store.asked
    )
    store.asked.clear()
    return found


def test_history_lands_on_an_object_store_once(store: Front, settings: dict[str, str]) -> None:
    first, first_requests = answer(*LAND, **settings), requests(store)
    again, again_requests = answer(*LAND, **settings), requests(store)
    assert [(one["rows"], one["landed"], one["downloads"]) for one in first["series"]] == [(1440, 2, 2)]
    assert [(one["rows"], one["unchanged"], one["downloads"]) for one in again["series"]] == [(1440, 2, 0)]
    assert sorted(all_files(settings["raw_url"])) == ["2024-01.parquet", "2024-02.parquet", "environment.json"]
    # A month is looked for and written: two requests. What else is asked does not grow with the months.
    assert (first_requests["months"], first_requests["written"]) == (2, 3)
    assert (again_requests["months"], again_requests["written"]) == (2, 0)
    assert max(first_requests["others"], again_requests["others"]) <= 8


def test_what_landed_there_is_shown(store: Front, settings: dict[str, str]) -> None:
    answer(*LAND, **settings)
    (raw,) = answer("status", **settings)["series"]
    assert (raw["rows"], raw["files"], raw["sources"]) == (1440, 2, ["archive_monthly"])
    (covered,) = answer("coverage", **settings)["series"]
    assert [month["state"] for month in covered["months"][:3]] == ["full", "full", "missing"]
    assert all(finding["ok"] for finding in answer("doctor", **settings)["findings"])
    assert not (Path(settings["home"]) / "raw").exists()


def test_a_permission_that_is_missing_is_one_line(store: Front, settings: dict[str, str]) -> None:
    store.refuse = lambda method, path: 403 if method == "POST" else None
    done = run(*LAND, **settings)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert "storage.objects.create" in done.stderr
    assert f"gs://{BUCKET}" in done.stderr


def test_what_landed_there_is_built_and_published(store: Front, settings: dict[str, str]) -> None:
    answer(*LAND, **settings)
    requests(store)
    answer("build", **settings)
    # Each month's footer, and the month once for each process or thread: not each time that DuckDB opens it.
    assert requests(store)["months"] <= 10
    bars = answer("query", "select count(*) as bars from market_data_unified where \"interval\" = '1h'", **settings)
    assert bars == [{"bars": 1440}]
    assert answer("check", **settings)["differences"] == []
