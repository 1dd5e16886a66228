"""The stream as a client meets it on loopback: addresses, framing, bars as on the other faces, and the truth."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import websocket
from support.exchanges import Exchange, comparable, millis
from support.streams import START, HandClock, Served, awaited, served

from ingestion.simulator.clock import Clock
from ingestion.simulator.listings import LISTINGS
from ingestion.simulator.outages import Outage
from ingestion.simulator.server import build_app, running

BTC, ETH = "btcusdt@kline_1m", "ethusdt@kline_1m"
OPEN = millis(START.replace(second=0))


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Served]:
    """Nothing wrong; its clock stands at START until it is moved."""
    with served(tmp_path / "truth.jsonl") as exchange:
        yield exchange


def kline_row(k: dict[str, Any]) -> list[Any]:
    """A kline as REST writes it."""
    return [k[name] for name in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")]


# --- addresses and framing -------------------------------------------------------------------------------------


def test_the_address_of_the_stream_is_told(exchange: Served) -> None:
    assert exchange.get("/simulator/stream")["url"] == exchange.address.replace("http", "ws")


def test_a_raw_stream_has_the_event_alone(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(seconds=5)
    event = json.loads(client.recv())
    assert (event["e"], event["s"], event["k"]["x"]) == ("kline", "BTCUSDT", False)


def test_a_combined_stream_names_it(exchange: Served) -> None:
    client = exchange.connect(f"/stream?streams={BTC}/{ETH}")
    exchange.clock.go(seconds=5)
    frames = [json.loads(client.recv()) for _ in range(2)]
    assert {(frame["stream"], frame["data"]["s"]) for frame in frames} == {(BTC, "BTCUSDT"), (ETH, "ETHUSDT")}


@pytest.mark.parametrize(("path", "combined"), [("/ws", False), ("/stream", True)])
def test_a_bare_address_has_its_framing_and_no_stream(exchange: Served, path: str, combined: bool) -> None:
    client = exchange.connect(path)
    assert client.ask("GET_PROPERTY", "combined") == {"result": combined, "id": 1}
    assert client.ask("LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}


def test_a_stream_subscribed_later_is_as_good(exchange: Served) -> None:
    client = exchange.connect("/ws")
    assert client.ask("SUBSCRIBE", BTC, number=7) == {"result": None, "id": 7}
    exchange.clock.go(minutes=1)
    assert client.closing()["t"] == OPEN


def test_the_framing_changes_on_demand(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}")
    client.ask("SET_PROPERTY", "combined", True)
    exchange.clock.go(minutes=1)
    assert client.closing(BTC)["t"] == OPEN


def test_a_stream_that_was_left_is_silent(exchange: Served) -> None:
    client = exchange.connect(f"/stream?streams={BTC}/{ETH}")
    client.ask("UNSUBSCRIBE", BTC)
    exchange.clock.go(minutes=2)
    assert [client.closing()["s"] for _ in range(2)] == ["ETHUSDT", "ETHUSDT"]


@pytest.mark.parametrize("name", ["nonsense", "abcusdt@kline_1m", "BTCUSDT@kline_1m", "btcusdt@kline_1s", "@kline_1m"])
def test_a_stream_that_there_is_not_is_silent(exchange: Served, name: str) -> None:
    client = exchange.connect("/stream")
    assert client.ask("SUBSCRIBE", name, BTC) == {"result": None, "id": 1}
    exchange.clock.go(minutes=1)
    assert client.closing()["s"] == "BTCUSDT"


def test_times_may_be_microseconds(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}?timeUnit=MICROSECOND")
    exchange.clock.go(minutes=1)
    kline = client.closing()
    assert (kline["t"], kline["T"]) == (OPEN * 1000, OPEN * 1000 + 59_999_999)


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/wss", 404), ("/ws/a?timeUnit=s", 400), ("/stream?streams=" + "a/" * 9, 101)]
)
def test_an_address_that_there_is_not_is_refused(exchange: Served, path: str, status: int) -> None:
    try:
        answer = exchange.connect(path).getstatus()
    except websocket.WebSocketBadStatusException as refused:
        answer = refused.status_code
    assert answer == status


def test_every_connection_says_that_it_is_simulated(exchange: Served) -> None:
    assert exchange.connect("/ws").getheaders()["x-klinehouse-simulated"] == "seed 1"


def test_a_frame_is_as_the_real_one(exchange: Served, shared_data: Path) -> None:
    real = json.loads((shared_data / "stream/kline-frames.jsonl").read_text().splitlines()[0])
    client = exchange.connect(f"/stream?streams={BTC}")
    exchange.clock.go(seconds=5)
    text = client.recv()
    frame = json.loads(text)
    assert [list(frame), list(frame["data"]), list(frame["data"]["k"])] == [
        list(real),
        list(real["data"]),
        list(real["data"]["k"]),
    ]
    assert types(frame) == types(real)
    assert text == json.dumps(frame, separators=(",", ":"))


def types(value: Any) -> Any:
    return {name: types(part) for name, part in value.items()} if isinstance(value, dict) else type(value)


# --- bars ------------------------------------------------------------------------------------------------------


def test_a_closed_bar_is_that_of_rest_and_archive(exchange: Served) -> None:
    client = exchange.connect(f"/stream?streams={BTC}/btcusdt@kline_5m/solusdt@kline_1h")
    exchange.clock.go(hours=20)
    closed = [client.closing("solusdt@kline_1h") for _ in range(20)]
    other = Exchange(build_app(now=exchange.clock))
    assert [kline_row(kline) for kline in closed] == other.klines("SOLUSDT", "1h", startTime=closed[0]["t"], limit=20)
    of_the_day = [kline_row(kline) for kline in closed[:12]]
    assert comparable(of_the_day) == comparable(other.archived("SOLUSDT", "1h", "2025-06-15")[12:])


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d"])
def test_an_open_bar_is_that_of_rest(exchange: Served, interval: str) -> None:
    client = exchange.connect(f"/ws/ethusdt@kline_{interval}")
    exchange.clock.go(seconds=5)
    kline = json.loads(client.recv())["k"]
    [row] = Exchange(build_app(now=exchange.clock)).klines("ETHUSDT", interval, limit=1)
    assert (kline["x"], kline_row(kline)) == (False, row)


def test_a_closing_frame_comes_after_the_close(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=3)
    for _ in range(3):
        event = client.until(lambda frame: frame["k"]["x"])
        assert event["E"] > event["k"]["T"]


def test_nothing_is_told_twice_while_nothing_changes(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(seconds=5)
    first = json.loads(client.recv())
    exchange.clock.go(minutes=1)
    assert json.loads(client.recv()) != first


def test_every_bar_closes_once_and_in_order(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(hours=5)
    assert [client.closing()["t"] for _ in range(300)] == [OPEN + 60_000 * i for i in range(300)]


def test_two_clients_have_the_same_frame(exchange: Served) -> None:
    clients = [exchange.connect(f"/ws/{BTC}") for _ in range(2)]
    exchange.clock.go(minutes=1)
    first, second = (client.until(lambda frame: frame["k"]["x"]) for client in clients)
    assert first == second


def test_a_halt_has_no_frames_and_bars_without_trades_have_no_trade_ids(tmp_path: Path) -> None:
    halt = START.replace(minute=2, second=20)
    outage = Outage(halt, START.replace(minute=5, second=0), timedelta(minutes=1))
    with served(tmp_path / "truth.jsonl", outages=[outage]) as exchange:
        client = exchange.connect(f"/ws/{BTC}")
        exchange.clock.go(minutes=6)
        closed = [client.closing() for _ in range(4)]
    assert [(kline["t"] - OPEN) // 60_000 for kline in closed] == [0, 1, 2, 5]
    assert [(kline["f"], kline["L"], kline["n"], kline["v"]) for kline in closed[1:3]] == [
        (-1, -1, 0, "0.00000000")
    ] * 2
    assert closed[2]["T"] == millis(halt) - 1


def test_a_symbol_that_ends_falls_silent_and_the_others_go_on(tmp_path: Path) -> None:
    clock = HandClock(LISTINGS["MATICUSDT"].end - timedelta(minutes=1, seconds=30))
    with served(tmp_path / "truth.jsonl", clock=clock) as exchange:
        client = exchange.connect("/stream?streams=maticusdt@kline_1m")
        exchange.clock.go(minutes=5)
        assert [client.closing()["t"] for _ in range(2)] == [
            millis(LISTINGS["MATICUSDT"].end) - 60_000 * i for i in (2, 1)
        ]
        client.ask("SUBSCRIBE", BTC)
        exchange.clock.go(minutes=1)
        assert client.closing()["s"] == "BTCUSDT"


def test_a_clock_that_jumps_leaves_no_bar_out(exchange: Served) -> None:
    names = [f"{symbol}usdt@kline_1m" for symbol in ("btc", "eth", "sol", "pol")]
    client = exchange.connect(f"/stream?streams={'/'.join(names)}")
    exchange.clock.go(hours=23)
    closed = [client.closing() for _ in range(4 * 23 * 60)]
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "POLUSDT"):
        opens = [kline["t"] for kline in closed if kline["s"] == symbol]
        assert opens == [OPEN + 60_000 * i for i in range(23 * 60)]


# --- the truth -------------------------------------------------------------------------------------------------


def test_the_truth_has_what_was_sent(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}?timeUnit=microsecond")
    exchange.clock.go(minutes=2)
    closed = [client.closing() for _ in range(2)]
    lines = exchange.truth_when(2)
    assert [line["values"] for line in lines] == [list(map(str, kline_row(kline)[:-1])) for kline in closed]
    assert [(line["symbol"], line["interval"], line["open_time"], line["closed"], line["fault"]) for line in lines] == [
        ("BTCUSDT", "1m", kline["t"], kline["T"] + 1, None) for kline in closed
    ]
    assert all(line["sent"] for line in lines)


def test_the_exchange_goes_on_when_nobody_listens(exchange: Served) -> None:
    client = exchange.connect(f"/ws/{BTC}")
    exchange.clock.go(minutes=1)
    client.closing()
    client.shutdown()
    awaited(lambda: exchange.get("/simulator/stream")["connections"] == 0)
    exchange.clock.go(minutes=2)
    lines = exchange.truth_when(3)
    assert [(line["open_time"] // 1000, line["sent"] is None, line["fault"]) for line in lines[1:]] == [
        (OPEN + 60_000 * i, True, "client_left") for i in (1, 2)
    ]


def test_an_exchange_that_was_down_tells_what_closed_in_between(tmp_path: Path) -> None:
    now = [START]
    truth = tmp_path / "truth.jsonl"
    app = build_app(now=lambda: now[0], truth=truth)
    with running(app) as address:
        client = websocket.create_connection(f"{address.replace('http', 'ws')}/ws/{BTC}", timeout=20)
    client.shutdown()
    now[0] += timedelta(minutes=3)
    with running(app):
        awaited(lambda: len(truth.read_text().splitlines()) == 3)
    assert [json.loads(line)["fault"] for line in truth.read_text().splitlines()] == ["server_shutdown"] * 3


# --- the clock -------------------------------------------------------------------------------------------------


def test_a_fast_clock_closes_bars_fast_on_all_faces(tmp_path: Path) -> None:
    clock = Clock(START, 600.0)
    with served(tmp_path / "truth.jsonl", now=clock) as exchange:
        client = exchange.connect(f"/ws/{BTC}")
        closed = [client.closing()["t"] for _ in range(20)]
        assert exchange.get("/api/v3/time")["serverTime"] > closed[-1]
        rest = exchange.get(f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={closed[-1]}&limit=1")
    assert closed == [closed[0] + 60_000 * i for i in range(20)]
    assert rest[0][0] == closed[-1]


def test_updates_of_a_fast_clock_are_bounded_in_real_time(tmp_path: Path) -> None:
    with served(tmp_path / "truth.jsonl", now=Clock(START, 60.0)) as exchange:
        client = exchange.connect("/ws/btcusdt@kline_1h")
        events = [json.loads(client.recv())["E"] for _ in range(4)]
    # Four a second: one in fifteen seconds of the exchange at speed 60, the first and the last of them late or not.
    assert events[3] - events[0] > 2 * 15_000
