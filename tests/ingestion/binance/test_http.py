"""Http against a scripted host on loopback, with a clock that only sleeping moves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_time import FakeTime

from ingestion.binance.http import Answer, Http, RateLimited, TooLarge, Traffic
from ingestion.errors import ExchangeRefused
from ingestion.settings import load_settings

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

BANNED = b'{"code":-1003,"msg":"Way too much request weight used; IP banned until 1660090423228."}'


class Client:
    """An Http of `host` with its books and its clock."""

    def __init__(self, host: ArchiveHost, **settings: Any) -> None:
        self.traffic, self.time, self._base = Traffic(), FakeTime(), host.url
        chosen = load_settings(**{"http_attempts": 3, "max_file_mb": 1, "max_wait": 300} | settings)
        self.http = Http(chosen, "KLINEHOUSE_REST_URL", self.traffic, sleep=self.time.sleep, clock=self.time.clock)

    def get(self, path: str = "x", **options: Any) -> Answer:
        return self.http.get(f"{self._base}/{path}", **options)

    def head(self, path: str = "x") -> Answer:
        return self.http.head(f"{self._base}/{path}")


@pytest.fixture
def client(host: ArchiveHost) -> Client:
    return Client(host)


# --- waiting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 418])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 1),
        (None, 60),
        ("", 60),
        ("soon", 60),
        ("nan", 60),
        ("inf", 60),
        ("-5", 60),
        ("1e2", 60),
        ("²", 60),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 60),
    ],
)
def test_a_limit_is_waited_out_as_long_as_the_host_says(
    host: ArchiveHost, client: Client, status: int, header: str | None, seconds: float
) -> None:
    headers = {} if header is None else {"retry-after": header.encode().decode("latin-1")}
    host.script("x", host.reply(status, BANNED, headers=headers), b"ok")
    assert client.get().body == b"ok"
    assert sum(client.time.slept) == pytest.approx(seconds)
    assert len(host.asked) == 2


def test_waits_are_counted(host: ArchiveHost, client: Client) -> None:
    limited = host.reply(429, headers={"retry-after": "5"})
    host.script("x", limited, host.reply(418, headers={"retry-after": "120"}), b"ok")
    client.get()
    traffic = client.traffic
    assert (traffic.rate_limit_waits, traffic.waited_s) == (2, pytest.approx(125))
    assert (traffic.requests, traffic.retries, traffic.bytes) == (3, 0, 2)


def test_a_limit_is_no_failed_attempt(host: ArchiveHost, client: Client) -> None:
    limited = host.reply(429, headers={"retry-after": "1"})
    host.script("x", *[limited] * 10, b"ok")
    assert client.get().body == b"ok"


def test_a_wait_beyond_max_wait_is_refused_and_says_for_how_long(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(418, BANNED, headers={"retry-after": "259200"}))
    with pytest.raises(RateLimited) as caught:
        client.get()
    assert f"{host.url} has banned this address for 259200 s" in caught.value.message
    assert "--max-wait 300" in caught.value.message
    assert client.time.slept == []


def test_max_wait_is_for_all_waits_together(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(429, headers={"retry-after": "100"}))
    with pytest.raises(RateLimited, match="after 300 s of waiting"):
        client.get()
    assert (sum(client.time.slept), len(host.asked)) == (pytest.approx(300), 4)


def test_a_host_that_wants_too_much_patience_is_never_asked_again(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(418, headers={"retry-after": "9999"}), b"ok")
    for _ in range(5):
        with pytest.raises(RateLimited):
            client.get()
    assert host.asked == ["x"]


def test_no_thread_asks_while_one_waits(host: ArchiveHost) -> None:
    """Eight threads are answered 429 together; the next request is sent when the wait is over, and it is one wait."""
    client = Client(host)
    everybody_waits = threading.Barrier(8, action=lambda: client.time.sleep(30))
    client.http._sleep = lambda seconds: everybody_waits.wait(timeout=60)
    together = threading.Barrier(8)
    limited = host.reply(429, headers={"retry-after": "30"}, gate=together)
    seen_at: list[float] = []
    host.script("x", *[limited] * 8, b"ok")
    host.script("late", b"ok")
    host.on_answer = lambda path: seen_at.append(client.time.clock())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get().body, range(8)))
    client.get("late")
    assert answers == [b"ok"] * 8
    begin = min(seen_at)
    assert seen_at == [begin] * 8 + [begin + 30] * 9
    assert client.traffic.rate_limit_waits == 1
    assert client.traffic.waited_s == pytest.approx(30)


def test_no_thread_asks_after_one_was_told_to_wait_too_long(host: ArchiveHost) -> None:
    client = Client(host, download_workers=8)
    host.script("x", host.reply(418, headers={"retry-after": "9999"}))
    with pytest.raises(RateLimited):
        client.get()
    with ThreadPoolExecutor(8) as pool:
        outcomes = [pool.submit(client.get, f"{number}").exception() for number in range(50)]
    assert {type(outcome) for outcome in outcomes} == {RateLimited}
    assert host.asked == ["x"]


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            403,
            b"<html><title>403 Forbidden</title></html>",
            "wait some minutes, or set KLINEHOUSE_REST_URL",
        ),
        (451, b'{"code":0,"msg":"Service unavailable from a restricted location"}', "does not serve this country"),
        (401, b"", "Check KLINEHOUSE_REST_URL"),
        (302, b"", "Check KLINEHOUSE_REST_URL"),
        (204, b"", "Check KLINEHOUSE_REST_URL"),
    ],
)
def test_a_refusal_is_explained_and_not_tried_again(
    host: ArchiveHost, client: Client, status: int, body: bytes, said: str
) -> None:
    host.script("x", host.reply(status, body))
    with pytest.raises(ExchangeRefused) as caught:
        client.get()
    assert f"{host.url}/x was refused with HTTP {status}" in caught.value.message
    assert body[:60].decode() in caught.value.message
    assert said in caught.value.remedy
    assert host.asked == ["x"]


def test_a_body_in_a_message_is_one_short_line(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(403, b"<html>\n\x00\xff" * 10_000))
    with pytest.raises(ExchangeRefused) as caught:
        client.get()
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("status", [200, 400, 404])
def test_an_answer_that_says_something_is_returned(host: ArchiveHost, client: Client, status: int) -> None:
    host.script("x", host.reply(status, b"{}"))
    assert client.get().status == status


def test_an_answer_that_passes_is_tried_again(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(400, b"busy"), b"ok")
    assert client.get(passes=lambda answer: answer.body == b"busy").body == b"ok"
    assert client.traffic.retries == 1


def test_a_body_without_end_is_not_read_to_it(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(body=bytes(2 << 20), missing=1 << 40))
    with pytest.raises(TooLarge, match="larger than 1 MB"):
        client.get()


# --- HEAD ------------------------------------------------------------------------------------------------------


def test_head_gives_the_headers_of_a_get(host: ArchiveHost, client: Client) -> None:
    host.script("x", host.reply(body=b"12345", headers={"ETag": "abc"}))
    answer = client.head()
    assert (answer.status, answer.headers["etag"], answer.headers["content-length"]) == (200, "abc", "5")
    assert (host.asked, answer.body) == ([], b"")


def test_a_host_without_head_says_so_once(host: ArchiveHost, client: Client) -> None:
    host.has_head = False
    assert client.head().status == 501
    assert host.headed == ["x"]


# --- traffic ---------------------------------------------------------------------------------------------------


def test_traffic_counts_over_threads() -> None:
    traffic = Traffic()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2000):
            pool.submit(traffic.add, requests=1, waited_s=0.5)
    assert traffic.as_dict() == {
        "requests": 2000,
        "retries": 0,
        "bytes": 0,
        "rate_limit_waits": 0,
        "waited_s": 1000.0,
    }


def test_after_a_wait_one_thread_asks_first(host: ArchiveHost) -> None:
    """The host limits the first who asks after the wait again: the others are not on their way then."""
    client = Client(host)
    everybody_waits = threading.Barrier(8, action=lambda: client.time.sleep(30))
    client.http._sleep = lambda seconds: everybody_waits.wait(timeout=60)
    limited = host.reply(429, headers={"retry-after": "30"}, gate=threading.Barrier(8))
    again = host.reply(418, headers={"retry-after": "30"})
    host.script("x", *[limited] * 8, again, b"ok")
    seen_at: list[float] = []
    host.on_answer = lambda path: seen_at.append(client.time.clock())
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: client.get().body, range(8))) == [b"ok"] * 8
    begin = seen_at[0]
    assert seen_at == [begin] * 8 + [begin + 30] + [begin + 60] * 8
