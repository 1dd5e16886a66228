"""Raw objects that came by other hands become materializations, once each, and no others do."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster_gcp import GCSResource
from support.homes import home

from ingestion.history.month import MonthResult, Outcome
from ingestion.klines import Month, Series
from ingestion.raw_zone import HistoryFile
from ingestion.settings import Settings
from orchestration import arrivals, history
from orchestration.arrivals import RawObject, Round, arrived, candidates, this_round
from orchestration.definitions import build_defs
from orchestration.history import RAW_KLINES, HistoryLander
from orchestration.partitions import PartitionSpace
from orchestration.schedules import LAND
from orchestration.warehouse_assets import BARS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SPACE = PartitionSpace(Month(2024, 1), ("BTCUSDT", "ETHUSDT"))
LISTED_UNDER = "lake/raw/klines/history"


def name_of(symbol: str, month: str, interval: str = "5m") -> str:
    return f"{LISTED_UNDER}/symbol={symbol}/interval={interval}/{month}.parquet"


def written(name: str, version: str = "1", at: datetime = NOW) -> RawObject:
    return RawObject(name, version, at)


# --- deciding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        name_of("BTCUSDT", "2024-07", interval="1h"),
        name_of("SOLUSDT", "2024-07"),
        name_of("BTCUSDT", "2023-12"),
        name_of("BTCUSDT", "2026-04"),
        name_of("BTCUSDT", "2024-13"),
        name_of("btc/usdt", "2024-07"),
        f"{LISTED_UNDER}/readme.txt",
        f"{LISTED_UNDER}/",
    ],
)
def test_objects_of_no_partition_are_passed_over(name: str) -> None:
    assert candidates([written(name)], None, "5m", SPACE, NOW) == {}


def test_objects_written_before_the_last_round_are_passed_over() -> None:
    old, new = written(name_of("BTCUSDT", "2024-07"), at=NOW - 2 * MINUTE), written(name_of("BTCUSDT", "2024-08"))
    since = arrivals._stamp(NOW - MINUTE)
    assert candidates([old, new], since, "5m", SPACE, NOW) == {"2024-08|BTCUSDT": new}


def test_what_was_noted_is_no_news_and_what_is_being_landed_waits() -> None:
    found = {key: written(key, "2") for key in ("noted", "replaced", "unknown", "reported without one", "busy")}
    noted = {"noted": "2", "replaced": "1", "reported without one": None, "busy": "1"}
    news, waiting = arrived(found, noted, {"busy", "noted"})
    assert list(news) == ["replaced", "unknown", "reported without one"]
    assert waiting == [found["busy"]]


def test_a_round_ends_at_the_last_object_and_the_next_looks_at_what_was_written_since_it_began() -> None:
    first = Round("space", arrivals._stamp(NOW))
    middle = first.next("b", [], NOW + MINUTE)
    assert (middle.after, middle.since) == ("b", None)
    second = middle.next(None, [], NOW + 2 * MINUTE)
    assert (second.after, second.since) == ("", arrivals._stamp(NOW - 10 * MINUTE))
    assert second.began == arrivals._stamp(NOW + 2 * MINUTE)


def test_what_waits_is_looked_at_again_in_the_next_round() -> None:
    old = NOW - timedelta(days=1)
    second = Round("space", arrivals._stamp(NOW)).next("b", [old], NOW).next(None, [NOW], NOW)
    assert second.since == arrivals._stamp(old)
    assert second.next(None, [], NOW).since == arrivals._stamp(NOW - 10 * MINUTE)


def test_other_partitions_are_looked_at_from_the_beginning(tmp_path: Path) -> None:
    settings = home(tmp_path)
    first = this_round(None, settings, SPACE, NOW)
    cursor = json.dumps(vars(first) | {"after": "b", "since": "2026"})
    assert this_round(cursor, settings, SPACE, NOW).after == "b"
    wider = PartitionSpace(SPACE.first_month, (*SPACE.symbols, "SOLUSDT"))
    assert this_round(cursor, settings, wider, NOW) == Round(this_round(None, settings, wider, NOW).space, first.began)


# --- ticks -------------------------------------------------------------------------------------------------------


@dataclass
class Bucket:
    """A bucket's listing, as storage.Client gives it."""

    objects: dict[str, SimpleNamespace] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def put(self, symbol: str, month: str) -> None:
        name = name_of(symbol, month)
        known = self.objects.get(name)
        generation = known.generation + 1 if known else 1_700_000_000_000_000
        self.objects[name] = SimpleNamespace(name=name, generation=generation, updated=datetime.now(UTC))

    def list_blobs(
        self, bucket: str, *, prefix: str, start_offset: str | None, max_results: int, fields: str
    ) -> list[SimpleNamespace]:
        assert (bucket, prefix) == ("bucket", f"{LISTED_UNDER}/")
        assert fields == "items(name,generation,updated),nextPageToken"
        names = sorted(name for name in self.objects if name >= (start_offset or ""))[:max_results]
        self.asked.append(len(names))
        return [self.objects[name] for name in names]


class Zone:
    """What `raw_klines` asks of a raw zone, of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def environment(self) -> None:
        return None

    def quarantined(self) -> list[object]:
        return []

    def each(self, look: Callable[[Series], object], items: Sequence[Series]) -> list[object]:
        return [look(item) for item in items]

    def history_files(self, interval: str, symbols: Sequence[str], months: Sequence[Month]) -> list[HistoryFile]:
        return [
            HistoryFile(Series(symbol, interval), month, name, 1, str(self._bucket.objects[name].generation))
            for symbol in symbols
            for month in months
            if (name := name_of(symbol, str(month))) in self._bucket.objects
        ]


class Lander(HistoryLander):
    """Lands into the bucket, and does something while it is at work."""

    bucket: Bucket
    meanwhile: Callable[[], None]

    def land(self, series: Sequence[Series], months: Sequence[Month]) -> list[MonthResult]:
        for one in series:
            for month in months:
                self.bucket.put(one.symbol, str(month))
        self.meanwhile()
        return [MonthResult(one, month, Outcome.LANDED) for one in series for month in months]


@dataclass
class Ticks:
    """The sensor, and an instance that hears of what it reports."""

    sensor: dg.SensorDefinition
    instance: dg.DagsterInstance
    cursor: str | None = None

    def tick(self) -> list[str]:
        """The partitions that one tick reports."""
        context = dg.build_sensor_context(self.instance, self.cursor, resources={"gcs": GCSResource()})
        result = self.sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        reported = []
        for event in result.asset_events:
            assert isinstance(event, dg.AssetMaterialization)
            assert event.asset_key == RAW_KLINES
            self.instance.report_runless_asset_event(event)
            reported.append(str(event.partition))
        return reported


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    found = Bucket()
    monkeypatch.setattr(GCSResource, "get_client", lambda self: found)
    monkeypatch.setattr(history, "RawZone", lambda root: Zone(found))
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    raw = {"target": "bigquery", "raw_url": "gs://bucket/lake/raw", "bigquery_project": "project"}
    return home(tmp_path, symbols="BTCUSDT,ETHUSDT", start="2024-01-01", **raw)


@pytest.fixture
def ticks(settings: Settings, bucket: Bucket) -> Iterator[Ticks]:
    with dg.DagsterInstance.ephemeral() as instance:
        (sensor,) = arrivals.sensors(settings, SPACE)
        yield Ticks(sensor, instance)


def landing(settings: Settings, ticks: Ticks, bucket: Bucket, meanwhile: Callable[[], None] = lambda: None) -> None:
    """A run that lands July 2024 of BTCUSDT."""
    lander = Lander(settings)
    lander.bucket, lander.meanwhile = bucket, meanwhile
    job = build_defs(settings, {"lander": lander}).resolve_job_def(LAND)
    assert job.execute_in_process(partition_key="2024-07|BTCUSDT", instance=ticks.instance).success


def test_an_object_by_other_hands_is_reported_once_and_again_when_it_is_replaced(ticks: Ticks, bucket: Bucket) -> None:
    assert ticks.tick() == []
    bucket.put("BTCUSDT", "2024-07")
    assert [ticks.tick(), ticks.tick()] == [["2024-07|BTCUSDT"], []]
    bucket.put("BTCUSDT", "2024-07")
    assert [ticks.tick(), ticks.tick()] == [["2024-07|BTCUSDT"], []]


def test_a_report_says_which_object_it_is_about(ticks: Ticks, bucket: Bucket) -> None:
    bucket.put("BTCUSDT", "2024-07")
    ticks.tick()
    event = ticks.instance.get_latest_materialization_event(RAW_KLINES)
    assert event is not None
    assert event.asset_materialization is not None
    told = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert told["path"] == f"gs://bucket/{name_of('BTCUSDT', '2024-07')}"
    assert told["version"] == "1700000000000000"


def test_an_object_that_a_run_landed_is_not_reported(settings: Settings, ticks: Ticks, bucket: Bucket) -> None:
    landing(settings, ticks, bucket)
    assert ticks.tick() == []
    bucket.put("BTCUSDT", "2024-07")
    assert ticks.tick() == ["2024-07|BTCUSDT"]


def test_an_object_that_a_run_is_landing_waits_for_it(settings: Settings, ticks: Ticks, bucket: Bucket) -> None:
    seen: list[list[str]] = []
    bucket.put("ETHUSDT", "2024-07")
    landing(settings, ticks, bucket, meanwhile=lambda: seen.append(ticks.tick()))
    assert seen == [["2024-07|ETHUSDT"]]
    assert ticks.tick() == []


def test_an_object_replaced_by_other_hands_while_a_run_landed_it_is_not_lost(
    settings: Settings, ticks: Ticks, bucket: Bucket
) -> None:
    """The run notes the newer version as its own: it is built after that."""
    landing(settings, ticks, bucket, meanwhile=lambda: bucket.put("BTCUSDT", "2024-07"))
    event = ticks.instance.get_latest_materialization_event(RAW_KLINES)
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["version"].value == "1700000000000001"
    assert ticks.tick() == []


def test_what_a_run_that_failed_had_landed_is_reported(settings: Settings, ticks: Ticks, bucket: Bucket) -> None:
    def fail() -> None:
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="is gone"):
        landing(settings, ticks, bucket, meanwhile=fail)
    assert ticks.tick() == ["2024-07|BTCUSDT"]


def test_ticks_go_round_a_zone_that_is_larger_than_one_of_them(
    ticks: Ticks, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "LISTED", 5)
    monkeypatch.setattr(arrivals, "LOOKED_UP", 3)
    keys = {f"2024-{month:02}|{symbol}" for month in range(1, 13) for symbol in SPACE.symbols}
    for key in keys:
        month, symbol = key.split("|")
        bucket.put(symbol, month)
    reported = [ticks.tick() for _ in range(9)]
    assert sorted(chain(*reported)) == sorted(keys)
    assert max(map(len, reported)) == 3
    assert max(bucket.asked) == 6
    bucket.put("BTCUSDT", "2024-01")
    assert list(chain(*(ticks.tick() for _ in range(9)))) == ["2024-01|BTCUSDT"]


def test_objects_of_symbols_that_are_added_later_are_reported_then(
    settings: Settings, ticks: Ticks, bucket: Bucket
) -> None:
    bucket.put("SOLUSDT", "2024-07")
    assert [ticks.tick(), ticks.tick()] == [[], []]
    (ticks.sensor,) = arrivals.sensors(settings, PartitionSpace(SPACE.first_month, (*SPACE.symbols, "SOLUSDT")))
    assert ticks.tick() == ["2024-07|SOLUSDT"]


def test_the_months_that_are_reported_are_built(settings: Settings, ticks: Ticks, bucket: Bucket) -> None:
    defs = build_defs(settings)
    before = dg.evaluate_automation_conditions(defs, ticks.instance)
    bucket.put("BTCUSDT", "2024-07")
    bucket.put("ETHUSDT", "2025-02")
    ticks.tick()
    after = dg.evaluate_automation_conditions(defs, ticks.instance, cursor=before.cursor)
    assert before.get_requested_partitions(BARS) == set()
    assert after.get_requested_partitions(BARS) == {"2024-07", "2025-02"}


def test_only_a_bucket_has_the_sensor(settings: Settings) -> None:
    assert arrivals.sensors(settings.model_copy(update={"raw_url": ""}), SPACE) == []
