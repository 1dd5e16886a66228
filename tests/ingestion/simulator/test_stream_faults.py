"""Faults of the stream as a client meets them, and their books."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import websocket
from support.exchanges import millis
from support.streams import START, Served, awaited, is_closing, served

from ingestion.simulator.faults import Faults
from ingestion.simulator.stream_limits import StreamLimits

BTC = "btcusdt@kline_1m"
OPEN = millis(START.replace(second=0))


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Makes an exchange with faults."""
    with ExitStack() as stack:

        def make(limits: StreamLimits | None = None, **faults: Any) -> Served:
            options = {"limits": limits} if limits else {}
            return stack.enter_context(served(tmp_path / "truth.jsonl", faults=Faults(**faults), **options))

        yield make


def test_a_connection_is_cut_off_in_the_middle_of_a_bar(faulty: Callable[..., Served]) -> None:
    exchange = faulty(stream_drop=1.0)
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=2)
    assert client.end() is None
    assert exchange.fired() == {"stream_drop": 1}
    lines = exchange.truth_when(2)
    assert lines[-1]["fault"] == "stream_drop"
    assert lines[-1]["sent"] is None


def test_a_dropped_client_can_come_back(faulty: Callable[..., Served]) -> None:
    exchange = faulty()
    exchange.connect(f"/ws/{BTC}").ask("LIST_SUBSCRIPTIONS")
    exchange.get("/simulator/stream/drop", "POST")
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=1)
    assert client.closing()["t"] == OPEN


def test_closing_frames_go_missing(faulty: Callable[..., Served]) -> None:
    exchange = faulty(stream_missing_close=0.5)
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=20)
    lines = exchange.truth_when(20)
    sent = [line["open_time"] // 1000 for line in lines if line["sent"]]
    assert 0 < len(sent) < 20
    assert [client.closing()["t"] for _ in sent] == sent
    assert {line["fault"] for line in lines if not line["sent"]} == {"stream_missing_close"}
    assert exchange.fired() == {"stream_missing_close": 20 - len(sent)}


def test_a_fault_strikes_the_same_bars_in_every_run(tmp_path: Path) -> None:
    struck = []
    for run in ("one", "other"):
        with served(tmp_path / run, faults=Faults(stream_missing_close=0.5)) as exchange:
            exchange.connect(f"/ws/{BTC}")
            exchange.clock.go(minutes=20)
            struck.append([line["open_time"] for line in exchange.truth_when(20) if line["fault"]])
    assert struck[0] == struck[1]


def test_a_closing_frame_comes_after_a_newer_one(faulty: Callable[..., Served]) -> None:
    exchange = faulty(stream_late_close=1.0)
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=1)
    exchange.fired_when("stream_late_close")
    exchange.clock.go(seconds=10)
    klines = [json.loads(client.recv())["k"] for _ in range(2)]
    assert [(kline["t"], kline["x"]) for kline in klines] == [(OPEN + 60_000, False), (OPEN, True)]
    [line] = exchange.truth_when(1)
    assert line["sent"]


def test_a_closing_frame_that_was_held_to_the_end_is_in_the_truth(tmp_path: Path) -> None:
    no_updates = StreamLimits(update_every=3600.0)
    with served(tmp_path / "truth.jsonl", faults=Faults(stream_late_close=1.0), limits=no_updates) as exchange:
        exchange.connect(f"/ws/{BTC}")
        exchange.clock.go(seconds=31)
        exchange.fired_when("stream_late_close")
    [line] = exchange.truth()
    assert (line["sent"], line["fault"]) == (None, "stream_late_close")


def test_frames_come_twice(faulty: Callable[..., Served]) -> None:
    exchange = faulty(stream_duplicates=1.0)
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=1)
    first, second = (client.until(is_closing) for _ in range(2))
    assert first == second
    assert exchange.fired_when("stream_duplicates") >= 1


def test_garbage_of_every_kind_comes_between_and_the_bars_all_the_same(faulty: Callable[..., Served]) -> None:
    exchange = faulty(stream_garbage=1.0)
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=40)
    exchange.truth_when(40)
    found, closed = set(), []
    while len(closed) < 40:
        opcode, data = client.recv_data()
        frame = parsed(data)
        if is_closing(frame) and isinstance(frame["k"]["t"], int):
            closed.append(frame["k"]["t"])
        else:
            found.add((opcode, data[:20]))
    assert closed == [OPEN + 60_000 * i for i in range(40)]
    assert len(found) >= 6
    assert {opcode for opcode, _ in found} == {websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY}
    assert exchange.fired() == {"stream_garbage": 40}


def parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def test_a_connection_falls_silent_and_speaks_again(faulty: Callable[..., Served]) -> None:
    exchange = faulty(StreamLimits(ping_every=0.02), stream_silence=0.5, stream_silence_seconds=0.1)
    client = exchange.connect(f"/ws/{BTC}")
    lines: list[Any] = []
    while len({line["fault"] for line in lines}) < 2 or lines[-1]["fault"]:
        while client.recv_data_frame(control_frame=True)[0] != websocket.ABNF.OPCODE_PING:
            pass
        exchange.clock.go(minutes=1)
        lines = exchange.truth_when(len(lines) + 1)
    assert {(line["fault"], line["sent"] is None) for line in lines} == {(None, False), ("stream_silence", True)}


def test_a_silent_connection_sends_no_ping_and_no_answer(faulty: Callable[..., Served]) -> None:
    exchange = faulty(StreamLimits(ping_every=0.02), stream_silence=1.0, stream_silence_seconds=3600.0)
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=1)
    exchange.fired_when("stream_silence")
    client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
    client.settimeout(0.3)
    with pytest.raises(websocket.WebSocketTimeoutException):
        list(iter(lambda: client.recv_data(control_frame=True), None))  # what was sent before


def test_the_truth_has_every_bar_once_whatever_goes_wrong(faulty: Callable[..., Served]) -> None:
    names = ("drop", "missing_close", "late_close", "duplicates", "garbage", "silence")
    exchange = faulty(**{f"stream_{name}": 0.1 for name in names}, stream_silence_seconds=0.01)
    streams = [BTC, "ethusdt@kline_1m", "solusdt@kline_3m"]
    exchange.connect(f"/stream?streams={'/'.join(streams)}").ask("LIST_SUBSCRIPTIONS")
    for _ in range(20):
        exchange.clock.go(minutes=9)
        if not exchange.get("/simulator/stream")["connections"]:
            exchange.connect(f"/stream?streams={'/'.join(streams)}")
    lines = exchange.truth_when(20 * (9 + 9 + 3) - 3)
    for symbol, length in (("BTCUSDT", 1), ("ETHUSDT", 1), ("SOLUSDT", 3)):
        minutes = [(line["open_time"] // 1000 - OPEN) // 60_000 for line in lines if line["symbol"] == symbol]
        assert sorted(minutes) == list(range(0, length * len(minutes), length))
        assert len(minutes) >= 20 * 9 // length - 1
    assert all((line["sent"] is None) == (line["fault"] is not None) for line in lines)


def test_connects_are_refused(faulty: Callable[..., Served]) -> None:
    exchange = faulty(stream_refused=0.5)
    statuses = [status_of(exchange) for _ in range(20)]
    assert set(statuses) == {101, 503}
    assert exchange.fired() == {"stream_refused": statuses.count(503)}


def status_of(exchange: Served) -> int:
    try:
        return exchange.connect("/ws").getstatus()
    except websocket.WebSocketBadStatusException as refused:
        return refused.status_code


def test_a_blocked_exchange_refuses_its_stream_too(faulty: Callable[..., Served]) -> None:
    exchange = faulty(blocked=451)
    with pytest.raises(websocket.WebSocketBadStatusException, match="451"):
        exchange.connect("/ws")


def test_a_connection_hears_of_a_shutdown_and_is_closed(faulty: Callable[..., Served]) -> None:
    exchange = faulty(StreamLimits(ping_every=0.02), stream_shutdown=0.01)
    client = exchange.connect("/ws")
    assert json.loads(client.recv()) == {"e": "serverShutdown", "E": millis(START)}
    assert client.end() == 1001
    assert exchange.fired() == {"stream_shutdown": 1}


@pytest.mark.parametrize(("path", "framed"), [("/ws", False), ("/stream", True)])
def test_a_shutdown_on_demand_is_framed_as_the_rest(faulty: Callable[..., Served], path: str, framed: bool) -> None:
    exchange = faulty()
    client = exchange.connect(path)
    exchange.get("/simulator/stream/shutdown", "POST")
    event = {"e": "serverShutdown", "E": millis(START)}
    assert json.loads(client.recv()) == ({"stream": "!serverShutdown", "data": event} if framed else event)
    assert client.end() == 1001


def test_connections_are_cut_off_on_demand(faulty: Callable[..., Served]) -> None:
    exchange = faulty()
    client = exchange.connect(f"/ws/{BTC}")
    awaited(lambda: exchange.get("/simulator/stream")["streams"] == 1)
    assert exchange.get("/simulator/stream/drop", "POST") == {"connections": 1}
    assert client.end() is None
