import base64
import hashlib
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.sync.server import ServerConnection, serve

from ingestion.binance.stream import (
    MAX_BYTES,
    MAX_STREAMS,
    Answer,
    KlineFrame,
    MalformedFrame,
    ServerShutdown,
    StreamLost,
    StreamSocket,
    decode_frame,
    subscriptions,
)
from ingestion.bus.port import Message
from ingestion.grid import micros
from ingestion.klines import Series
from ingestion.messages import decode, encode
from tests.support.live import BTC, START, combined, kline_event

CLOSED = kline_event(BTC, START, closed=True)


def changed(**fields: Any) -> bytes:
    """A closing frame with these fields of its bar changed; None removes one."""
    bar = {name: value for name, value in (CLOSED["k"] | fields).items() if value is not None}
    return json.dumps(CLOSED | {"k": bar}).encode()


def kind_of(data: bytes) -> str:
    with pytest.raises(MalformedFrame) as refused:
        decode_frame(data)
    return refused.value.kind


def kline(data: str | bytes) -> KlineFrame:
    found = decode_frame(data.encode() if isinstance(data, str) else data)
    assert isinstance(found, KlineFrame)
    return found


def test_a_closing_frame_is_a_closed_bar() -> None:
    frame = kline(json.dumps(CLOSED))
    assert (frame.series, frame.closed, frame.trades) == (BTC, True, 7)


def test_a_combined_frame_is_read_as_a_raw_one() -> None:
    assert kline(combined(BTC, CLOSED)) == kline(json.dumps(CLOSED))


def test_an_open_bar_is_told_from_a_closed_one() -> None:
    assert not kline(json.dumps(kline_event(BTC, START, closed=False))).closed


def test_times_are_microseconds_as_rest_has_them() -> None:
    frame = kline(json.dumps(CLOSED))
    assert (frame.open_time, frame.close_time) == (START, START + 59_999_000)


def test_times_in_microseconds_stay_what_they_are() -> None:
    frame = kline(
        json.dumps(CLOSED | {"E": START + 60_000_000, "k": CLOSED["k"] | {"t": START, "T": START + 59_999_999}})
    )
    assert (frame.open_time, frame.close_time) == (START, START + 59_999_999)


def test_a_bar_without_trades_is_a_bar() -> None:
    assert kline(changed(f=-1, L=-1, n=0, v="0.00000000")).trades == 0


def test_a_bar_that_a_halt_cut_short_is_a_bar() -> None:
    assert kline(changed(T=START // 1000 + 41_646)).close_time == START + 41_646_000


def test_a_closed_bar_is_a_message_that_the_warehouse_reads() -> None:
    message = kline(json.dumps(CLOSED)).message(START + 60_100_000)
    assert decode(encode(message)) == message


def test_the_values_are_those_of_the_frame() -> None:
    message = kline(json.dumps(CLOSED)).message(START)
    bar = CLOSED["k"]
    names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "quote_volume": "q"}
    names |= {"taker_buy_base_volume": "V", "taker_buy_quote_volume": "Q"}
    assert {name: getattr(message, name) for name in names} == {name: bar[key] for name, key in names.items()}


@pytest.mark.parametrize(
    "text",
    [
        '{"e":"serverShutdown","E":1770123456789}',
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    ],
)
def test_the_notice_of_shutdown_is_known(text: str) -> None:
    assert decode_frame(text.encode()) == ServerShutdown()


def test_an_answer_is_known_by_its_id() -> None:
    assert decode_frame(b'{"result":null,"id":3}') == Answer(3, "")


def test_a_refusal_says_why() -> None:
    found = decode_frame(b'{"code":2,"msg":"Invalid request: too many parameters","id":1}')
    assert isinstance(found, Answer)
    assert "too many parameters" in found.error


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "no_json"),
        (b"\xff\xfe", "no_json"),
        (b"[" * 60_000, "no_json"),
        (b"9" * 60_000, "no_json"),
        (b"[]", "no_object"),
        (b'{"stream":"x","data":[]}', "no_object"),
        (b"{}", "unknown_event"),
        (b'{"e":"trade"}', "unknown_event"),
        (b" " * (MAX_BYTES + 1), "too_large"),
        (json.dumps(CLOSED | {"k": None}).encode(), "no_kline"),
        (json.dumps(CLOSED | {"s": "ETHUSDT"}).encode(), "no_kline"),
        (combined(Series("ETHUSDT", "1m"), CLOSED).encode(), "no_kline"),
        (json.dumps(CLOSED | {"E": START // 1000}).encode(), "no_kline"),
        (json.dumps(CLOSED | {"E": None}).encode(), "no_kline"),
        (changed(s="../../etc"), "no_kline"),
        (changed(i="7m"), "no_kline"),
        (changed(x="true"), "no_kline"),
        (changed(x=1), "no_kline"),
        (changed(o=None), "no_kline"),
        (changed(o=1.5), "no_kline"),
        (changed(o="NaN"), "no_kline"),
        (changed(o="1e5"), "no_kline"),
        (changed(o="1_0"), "no_kline"),
        (changed(o="\u0661"), "no_kline"),
        (changed(o="1" * 30), "no_kline"),
        (changed(c="__import__('os')"), "no_kline"),
        (changed(n=-1), "no_kline"),
        (changed(n=True), "no_kline"),
        (changed(n=10**30), "no_kline"),
        (changed(t=START // 10**6), "no_kline"),
        (changed(t=True), "no_kline"),
        (changed(T=START // 1000 - 1), "no_kline"),
        (changed(T=START // 1000 + 60_000), "no_kline"),
        (changed(t=START // 1000 + 1), "off_grid"),
    ],
)
def test_what_is_no_frame_is_named(data: bytes, kind: str) -> None:
    assert kind_of(data) == kind


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def decoded(data: bytes) -> object:
    """What a frame decodes to; None where it is refused. Whatever else is raised fails the test."""
    with suppress(MalformedFrame):
        return decode_frame(data)
    return None


@given(st.binary(max_size=300))
@example(b'{"id":1,"result":null}')
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    decoded(data)


@given(_JSON, st.sampled_from(["event", "bar", "data", "whole"]), st.sampled_from([*CLOSED, *CLOSED["k"]]))
def test_any_json_in_any_place_is_a_frame_or_refused(value: Any, place: str, name: str) -> None:
    whole = {
        "event": CLOSED | {name: value},
        "bar": CLOSED | {"k": CLOSED["k"] | {name: value}},
        "data": {"stream": name, "data": value},
        "whole": value,
    }[place]
    found = decoded(json.dumps(whole).encode())
    if isinstance(found, KlineFrame):
        message = found.message(START)
        assert decode(Message(encode(message).data)) == message


@pytest.mark.shared
def test_recorded_frames_of_the_real_exchange_are_read(shared_data: Path) -> None:
    lines = [
        line for path in sorted((shared_data / "stream").glob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    frames = [kline(line) for line in lines]
    assert (len(frames), sum(frame.closed for frame in frames)) == (39, sum('"x":true' in line for line in lines))
    for line, frame in zip(lines, frames, strict=True):
        event = json.loads(line)["data"]
        bar = event["k"]
        assert frame.message(0).close == bar["c"]
        assert (frame.open_time, frame.close_time) == (bar["t"] * 1000, bar["T"] * 1000)
        assert micros(datetime.fromtimestamp(event["E"] / 1000, UTC)) == frame.event_time


def test_as_many_streams_as_a_connection_has_are_asked_for_in_few_requests() -> None:
    series = [Series(f"A{number}USDT", "1m") for number in range(MAX_STREAMS)]
    requests = [json.loads(text) for _, text in subscriptions(series)]
    asked = [name for request in requests for name in request["params"]]
    assert asked == [f"a{number}usdt@kline_1m" for number in range(MAX_STREAMS)]
    assert len(requests) <= 10
    assert [request["id"] for request in requests] == [number for number, _ in subscriptions(series)]


class Peer:
    """A server of one connection: sends what the test wrote, then waits for the end."""

    def __init__(self) -> None:
        self.says: list[str | bytes] = []
        self.fragments: list[str] = []
        self.closes = False

    def handle(self, connection: ServerConnection) -> None:
        for text in self.says:
            connection.send(text)
        if self.fragments:
            connection.send(self.fragments)
        if self.closes:
            connection.close(1001, "going away")
        for _ in connection:
            pass


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def address(peer: Peer) -> Iterator[str]:
    with serve(peer.handle, "127.0.0.1", 0, max_size=None, close_timeout=0.1) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


def test_messages_come_in_order(peer: Peer, address: str) -> None:
    peer.says = ["one", b"two"]
    with StreamSocket(address, 5) as found:
        assert [found.receive(5), found.receive(5)] == [b"one", b"two"]


def test_nothing_comes_where_nothing_is_said(peer: Peer, address: str) -> None:
    with StreamSocket(address, 5) as found:
        assert found.receive(0.01) is None


def test_a_pong_is_heard(peer: Peer, address: str) -> None:
    with StreamSocket(address, 5) as found:
        found.ping()
        assert found.receive(5) == b""


def test_a_close_is_a_loss(peer: Peer, address: str) -> None:
    peer.closes = True
    with (
        StreamSocket(address, 5) as found,
        pytest.raises(StreamLost, match="closed by the server, code 1001: going away"),
    ):
        found.receive(5)


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that sends these pieces, each as often as it is taken, whatever it is asked."""

    def serve_one() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                key = connection.recv(4096).partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
                accepted = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
                connection.sendall(pieces[0].replace(b"ACCEPTED", accepted))
                while True:
                    for piece in pieces[1:]:
                        connection.sendall(piece)
                        time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_one, daemon=True).start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"


GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
OPENED = b"HTTP/1.1 101 Go on\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPTED\r\n\r\n"
LARGE = (64 << 20).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"\x81\x7f" + LARGE, b"x" * 65_536),
        (b"\x82\x7f" + (2**63 - 1).to_bytes(8, "big"), b"x" * 65_536),
        (b"\x01\x7e\xf0\x00" + b"x" * 0xF000, b"\x00\x7e\xf0\x00" + b"x" * 0xF000),
    ],
    ids=["a frame of 64 MiB", "of more than there is", "fragments without end"],
)
def test_what_is_too_large_is_refused_in_bounded_memory(first: bytes, then: bytes) -> None:
    with answering(OPENED + first, then) as address, StreamSocket(address, 5) as found:
        tracemalloc.start()
        with pytest.raises(StreamLost) as lost:
            found.receive(5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert lost.value.kind == "too_large"
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "answer",
    [
        (b"HTTP/1.1 101 Go on\r\nX-Header: ", b"x" * 1000),
        (b"HTTP/1.1 101 Go on\r\n", b"X-Header: x\r\n"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 100000000000\r\n\r\n", b"x" * 1000),
    ],
    ids=["a header", "headers", "a refusal"],
)
def test_an_answer_without_end_opens_nothing_in_bounded_memory(answer: tuple[bytes, ...]) -> None:
    tracemalloc.start()
    with answering(*answer) as address, pytest.raises(StreamLost) as lost:
        StreamSocket(address, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (lost.value.kind, "too long" in str(lost.value)) == ("refused", True)
    assert peak < 1 << 20


def test_an_answer_that_comes_byte_by_byte_is_not_waited_for_without_end() -> None:
    with (
        answering(b"HTTP/1.1 101 Go on\r\n", b"X", pause=0.02) as address,
        pytest.raises(StreamLost, match=r"has no end|timed out"),
    ):
        StreamSocket(address, 0.3)


def test_fragments_that_add_up_to_too_much_are_not_read(peer: Peer, address: str) -> None:
    peer.fragments = ["x" * 60_000] * 50
    with StreamSocket(address, 5) as found, pytest.raises(StreamLost) as lost:
        found.receive(5)
    assert lost.value.kind == "too_large"


def test_an_address_where_nobody_listens_is_a_loss() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StreamLost) as lost:
        StreamSocket(f"ws://127.0.0.1:{port}", 1)
    assert lost.value.kind == "refused"
