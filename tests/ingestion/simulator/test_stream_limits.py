"""What a connection may, and how it ends when it does more: with shortened lengths."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import websocket
from support.streams import Client, Served, served

from ingestion.simulator.stream_limits import EXCHANGE_LIMITS, StreamLimits

BTC = "btcusdt@kline_1m"
PING, CLOSE = websocket.ABNF.OPCODE_PING, websocket.ABNF.OPCODE_CLOSE


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Makes an exchange with other limits."""
    with ExitStack() as stack:

        def make(**limits: Any) -> Served:
            return stack.enter_context(served(tmp_path / "truth.jsonl", limits=StreamLimits(**limits)))

        yield make


def ping_of(client: Client) -> bytes:
    """The payload of the next ping, unanswered."""
    while True:
        frame = client.recv_frame()
        if frame.opcode == PING:
            return frame.data


def test_the_limits_are_those_of_the_exchange() -> None:
    limits = EXCHANGE_LIMITS
    assert (limits.ping_every, limits.pong_within, limits.life) == (20, 60, 24 * 3600)
    assert (limits.messages_per_second, limits.streams, limits.connects, limits.connects_window) == (5, 1024, 300, 300)


def test_pings_have_a_payload(limited: Callable[..., Served]) -> None:
    client = limited(ping_every=0.02).connect("/ws")
    assert ping_of(client)


def test_who_answers_pings_stays(limited: Callable[..., Served]) -> None:
    exchange = limited(ping_every=0.3, pong_within=0.5)
    client = exchange.connect("/ws")
    for _ in range(4):
        client.pong(ping_of(client))
    assert client.ask("LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
    assert exchange.fired() == {}


def test_who_does_not_answer_is_disconnected(limited: Callable[..., Served]) -> None:
    exchange = limited(ping_every=0.02, pong_within=0.1)
    client = exchange.connect("/ws")
    frame = client.recv_frame()
    while frame.opcode == PING:
        frame = client.recv_frame()
    assert (frame.opcode, int.from_bytes(frame.data[:2], "big")) == (CLOSE, 1008)
    assert exchange.fired() == {"stream_no_pong": 1}


def test_a_pong_with_another_payload_does_not_count(limited: Callable[..., Served]) -> None:
    exchange = limited(ping_every=0.1, pong_within=0.3, messages_per_second=100)
    client = exchange.connect("/ws")
    frame = client.recv_frame()
    while frame.opcode == PING:
        client.pong(b"something else")
        frame = client.recv_frame()
    assert exchange.fired() == {"stream_no_pong": 1}


def test_a_ping_of_the_client_is_answered(limited: Callable[..., Served]) -> None:
    client = limited().connect("/ws")
    client.ping(b"are you there")
    frame = client.recv_frame()
    assert (frame.opcode, frame.data) == (websocket.ABNF.OPCODE_PONG, b"are you there")


def test_the_life_of_a_connection_is_in_the_time_of_the_exchange(limited: Callable[..., Served]) -> None:
    exchange = limited(ping_every=0.02)
    client = exchange.connect("/ws")
    client.ask("LIST_SUBSCRIPTIONS")
    exchange.clock.go(hours=23)
    client.ask("LIST_SUBSCRIPTIONS")
    exchange.clock.go(hours=1, seconds=1)
    assert client.end() == 1008
    assert exchange.fired() == {"stream_end_of_life": 1}


@pytest.mark.parametrize("what", ["text", "ping", "pong"])
def test_more_than_five_messages_a_second_end_it(limited: Callable[..., Served], what: str) -> None:
    exchange = limited()
    client = exchange.connect("/ws")
    send = {"text": lambda: client.send("{}"), "ping": client.ping, "pong": client.pong}[what]
    for _ in range(6):
        send()
    assert client.end() == 1008
    assert exchange.fired() == {"stream_too_many_messages": 1}


def test_five_messages_are_allowed(limited: Callable[..., Served]) -> None:
    client = limited().connect("/ws")
    answers = [client.ask("LIST_SUBSCRIPTIONS", number=number)["id"] for number in range(5)]
    assert answers == [0, 1, 2, 3, 4]


def test_as_many_streams_as_allowed_fit_on_a_connection(limited: Callable[..., Served]) -> None:
    client = limited().connect("/ws")
    names = [f"s{number}usdt@kline_1m" for number in range(1024)]
    assert client.ask("SUBSCRIBE", *names) == {"result": None, "id": 1}
    client.send(json.dumps({"method": "SUBSCRIBE", "params": ["onemore@kline_1m"], "id": 2}))
    assert client.end() == 1008


def test_more_streams_than_allowed_are_refused_in_the_address(limited: Callable[..., Served]) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match="400"):
        limited(streams=2).connect("/stream?streams=a/b/c")


def test_too_many_connects_are_refused(limited: Callable[..., Served]) -> None:
    exchange = limited(connects=2)
    for _ in range(2):
        exchange.connect("/ws")
    with pytest.raises(websocket.WebSocketBadStatusException, match="429"):
        exchange.connect("/ws")
    assert exchange.fired() == {"stream_429": 1}


def test_connects_are_allowed_again_after_the_window(limited: Callable[..., Served]) -> None:
    exchange = limited(connects=1, connects_window=0.05)
    exchange.connect("/ws")
    time.sleep(0.06)  # there is nothing to see of it, and every try would count
    assert exchange.connect("/ws").getstatus() == 101


def test_who_does_not_read_is_cut_off(limited: Callable[..., Served]) -> None:
    exchange = limited(buffer_bytes=4096)
    streams = "/".join(f"{symbol}usdt@kline_1m" for symbol in ("btc", "eth", "sol", "pol"))
    exchange.connect(f"/stream?streams={streams}", sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),))
    exchange.clock.go(hours=2)
    assert exchange.fired_when("stream_slow_reader") == 1
    lines = exchange.truth_when(480)
    assert {line["fault"] for line in lines} == {None, "stream_slow_reader"}


def test_a_message_that_is_too_large_ends_the_connection(limited: Callable[..., Served]) -> None:
    client = limited().connect("/ws")
    client.send("x" * 200_000)
    assert client.end() == 1009
