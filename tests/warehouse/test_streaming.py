"""The streaming run: from the bus to what readers see, one at a time, killed and started again."""

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from unittest import mock

import pyarrow as pa
import pytest
from support.homes import home, random_walk
from support.streamed import between, messages

from ingestion import microbatch
from ingestion.bus.local import LocalBus
from ingestion.bus.open import open_bus
from ingestion.bus.port import DEAD_LETTERS_SUBSCRIPTION, KLINES, MICROBATCH, REASON, TOPOLOGY, Bus, Message
from ingestion.klines import Series
from ingestion.messages import encode
from ingestion.settings import Settings
from warehouse import streaming
from warehouse.dbt import BuildFailed
from warehouse.live_port import Applied
from warehouse.serving import run_query
from warehouse.streaming import BatchReport, stream, until_asked

START = datetime(2024, 6, 30, 20, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
KLINES_OF_A_DAY = pa.concat_tables(
    random_walk(Series(symbol, "15m"), START, 96, seed=seed) for seed, symbol in enumerate(SYMBOLS)
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path / "home", symbols=",".join(SYMBOLS), interval="15m")


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    with open_bus(settings) as opened:
        yield opened


def publish_bars(bus: Bus, first: int, last: int) -> None:
    bus.publish(KLINES, [encode(one) for one in messages(between(KLINES_OF_A_DAY, first, last))])


def drained(bus: Bus) -> Callable[[], str | None]:
    return lambda: None if bus.backlog(MICROBATCH).messages else "nothing waits"


def test_bars_on_the_bus_become_visible_and_are_acknowledged(settings: Settings, bus: Bus) -> None:
    reports: list[BatchReport] = []
    publish_bars(bus, 0, 40)
    assert stream(settings, bus, reports.append, drained(bus)) == "nothing waits"
    assert sum(report.rows for report in reports) == 80
    last = reports[-1]
    assert (last.series, last.refused, last.backlog) == (2, (), 0)
    assert last.watermark == START + timedelta(minutes=15 * 40, milliseconds=-1)
    count = "select count(*), max(open_time) from market_data_unified where \"interval\" = '15m'"
    assert run_query(settings, count).rows == [(80, START + timedelta(minutes=15 * 39))]


def test_what_is_no_kline_becomes_a_dead_letter_with_its_reason_and_the_others_go_on(settings: Settings) -> None:
    at_once = [one.__class__(one.name, one.topic, min_backoff=timedelta(0)) for one in TOPOLOGY]
    with LocalBus(settings.bus_path, at_once) as bus:
        bus.publish(KLINES, [Message(b"{")])
        publish_bars(bus, 0, 2)
        bus.publish(KLINES, [Message(b'{"schema": 1}')])
        refused: list[str] = []
        stream(settings, bus, lambda report: refused.extend(report.refused), drained(bus))
        dead = bus.pull(DEAD_LETTERS_SUBSCRIPTION, max_messages=10, max_bytes=1 << 20, wait=1)
    assert sorted(one.message.data for one in dead) == [b"{", b'{"schema": 1}']
    assert all("The message is no kline" in one.message.attributes[REASON] for one in dead)
    assert len(refused) == 10
    assert run_query(settings, "select count(*) from market_data_unified").rows == [(4,)]


class SlowWarehouse:
    """Settles a batch when it has been asked to go on three times."""

    def __init__(self, settings: Settings) -> None:
        self._applied: list[Applied] = []
        self._calls = 0

    def apply(self, rows: pa.Table) -> Applied:
        self._applied.append(Applied())
        return self._applied[-1]

    def between_batches(self, *, nothing_waits: bool) -> None:
        self._calls += bool(self._applied)
        for applied in self._applied:
            applied.is_settled = self._calls > 3

    def tidy(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


def test_a_run_that_is_to_end_waits_until_its_messages_are_acknowledged(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LiveDuckDB", SlowWarehouse)
    publish_bars(bus, 0, 1)
    reports: list[BatchReport] = []
    asked: list[str] = []

    def is_asked() -> str | None:
        if bus.backlog(MICROBATCH).leased:
            asked.append("it was asked while a batch was on its way")
        return asked[0] if asked else None

    assert stream(settings, bus, reports.append, is_asked) == asked[0]
    assert (len(reports), bus.backlog(MICROBATCH).messages) == (1, 0)


def test_messages_stay_leased_as_long_as_their_bars_are_not_settled(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LiveDuckDB", SlowWarehouse)
    monkeypatch.setattr(streaming, "_EXTEND_EVERY", 0.0)
    publish_bars(bus, 0, 1)
    with mock.patch.object(bus, "extend", wraps=bus.extend) as extend:
        stream(settings, bus, lambda report: None, drained(bus))
    extended = [(len(call.args[1]), call.args[2]) for call in extend.call_args_list if call.args[1]]
    assert len(extended) >= 3
    assert set(extended) == {(2, 60.0)}


def test_no_more_is_taken_from_the_bus_than_can_be_settled(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LiveDuckDB", SlowWarehouse)
    monkeypatch.setattr(streaming, "_OPEN_MESSAGES", 2)
    monkeypatch.setattr(microbatch, "MAX_MESSAGES", 2)
    publish_bars(bus, 0, 4)
    most = 0

    def look() -> str | None:
        nonlocal most
        most = max(most, bus.backlog(MICROBATCH).leased)
        return drained(bus)()

    stream(settings, bus, lambda report: None, look)
    assert most == 2


def test_messages_of_bars_that_could_not_be_settled_are_there_again_at_once(settings: Settings, bus: Bus) -> None:
    publish_bars(bus, 0, 1)
    with (
        mock.patch("warehouse.live.build", side_effect=BuildFailed("It fails.", "")),
        pytest.raises(BuildFailed),
    ):
        stream(settings, bus, lambda report: None, lambda: None)
    assert len(bus.pull(MICROBATCH, max_messages=10, max_bytes=1 << 20, wait=0)) == 2


def test_a_signal_ends_a_run_after_its_batch_and_means_what_it_did_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_asked() as asked:
        assert asked() is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == "it was asked to stop"
    assert signal.getsignal(signal.SIGTERM) is before
