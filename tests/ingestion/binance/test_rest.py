"""Rest against a host in memory whose answers are worked out by brute force from a list of bars."""

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_time import FakeTime

from ingestion.binance.http import Answer, TooLarge
from ingestion.binance.rest import MalformedAnswer, Rest, UnknownSymbol, WeightBudget
from ingestion.errors import ExchangeRefused
from ingestion.klines import Series

SERIES = Series("BTCUSDT", "1m")
MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2024, 7, 1, tzinfo=UTC)
NOW = datetime(2024, 8, 1, tzinfo=UTC)
BASE = "http://rest.example"


def millis(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(milliseconds=1)


def kline(minute: int) -> list[Any]:
    opens = millis(START + minute * MINUTE)
    return [opens, "2.0", "3.0", "1.0", "2.5", "10.0", opens + 59_999, "20.0", minute, "5.0", "10.0", "0"]


class FakeHost:
    """In the place of Http. Serves klines at some minutes; other answers are put in front by name."""

    def __init__(self, minutes: list[int] = (), now: datetime = NOW) -> None:
        self.klines = [kline(minute) for minute in sorted(minutes)]
        self.now = now
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, Answer] = {}
        self.passes: Callable[[Answer], bool] = lambda _: False

    def get(self, url: str, fields: Mapping[str, str], *, passes: Callable[[Answer], bool]) -> Answer:
        name = url.removeprefix(f"{BASE}/api/v3/")
        self.asked.append((name, dict(fields)))
        self.passes = passes
        if name in self.answers:
            return self.answers[name]
        return answer(self._klines(fields) if name == "klines" else {"serverTime": millis(self.now)})

    def _klines(self, fields: Mapping[str, str]) -> list[list[Any]]:
        """As the exchange documents it: both ends inclusive, oldest first, no more than the limit."""
        first, last = int(fields["startTime"]), int(fields.get("endTime", 10**14))
        inside = [row for row in self.klines if first <= row[0] <= last]
        return inside[: min(int(fields.get("limit", 500)), 1000)]


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def rest(host: FakeHost, budget: WeightBudget | None = None) -> Rest:
    return Rest(BASE, host, budget or WeightBudget(10**9))  # type: ignore[arg-type]  # a host that is played


def klines(host: FakeHost, start: int, end: int) -> list[int]:
    """The minutes of the bars that are found in `[start, end)`."""
    found = rest(host).klines(SERIES, START + start * MINUTE, START + end * MINUTE)
    if found.parsed is None:
        return []
    return [(time - START) // MINUTE for time in found.parsed.rows["open_time"].to_pylist()]


# --- pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 1999, 2000, 2001, 5000])
def test_all_bars_come_once_and_in_order_whatever_their_number(count: int) -> None:
    host = FakeHost(list(range(count)))
    assert klines(host, 0, 6000) == list(range(count))
    assert len(host.asked) == count // 1000 + 1 + (count > 0)  # and the clock


@pytest.mark.parametrize("end", [1, 1000, 2000])
def test_a_window_is_half_open(end: int) -> None:
    assert klines(FakeHost(list(range(-5, 3000))), 0, end) == list(range(end))


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 1500)), max_size=4),
    st.integers(0, 4000),
    st.integers(0, 4000),
)
def test_pages_equal_one_look_at_the_list(runs: list[tuple[int, int]], start: int, length: int) -> None:
    minutes = sorted({minute for first, count in runs for minute in range(first, first + count)})
    host = FakeHost(minutes)
    expected = minutes[bisect_left(minutes, start) : bisect_left(minutes, start + length)]
    assert klines(host, start, start + length) == expected


def test_no_bar_is_sent_twice() -> None:
    host = FakeHost(list(range(3500)))
    found = rest(host).klines(SERIES, START, START + 4000 * MINUTE)
    assert (found.parsed.duplicates, found.parsed.superseded.num_rows) == (0, 0)
    starts = [int(fields["startTime"]) for name, fields in host.asked if name == "klines"]
    assert starts == [millis(START), *(millis(START + page * MINUTE) + 1 for page in (999, 1999, 2999))]


def test_the_answer_names_its_address_and_counts_its_bytes() -> None:
    host = FakeHost([0, 1])
    found = rest(host).klines(SERIES, START, START + 10 * MINUTE)
    assert found.url == f"{BASE}/api/v3/klines?symbol=BTCUSDT&interval=1m"
    assert found.bytes == len(answer([kline(0), kline(1)]).body)


def test_a_host_that_does_not_get_on_is_refused_not_asked_for_ever() -> None:
    host = FakeHost()
    host.answers["klines"] = answer([kline(minute) for minute in range(1000)])
    with pytest.raises(MalformedAnswer, match="not in order"):
        klines(host, 2000, 9000)
    assert len(host.asked) == 1


def test_a_page_in_the_wrong_order_is_refused() -> None:
    host = FakeHost()
    host.answers["klines"] = answer([kline(minute) for minute in range(1000, 0, -1)])
    with pytest.raises(MalformedAnswer, match="not in order"):
        klines(host, 0, 9000)


def test_bars_that_nobody_asked_for_are_refused() -> None:
    host = FakeHost()
    host.answers["klines"] = answer([kline(50)])
    with pytest.raises(MalformedAnswer, match="outside of"):
        klines(host, 0, 50)


# --- what is closed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "closed"), [(119.9989, 1), (119.999, 1), (120, 2), (120.5, 2), (179, 2), (180, 3)])
def test_a_bar_is_closed_by_the_exchanges_clock(monkeypatch: pytest.MonkeyPatch, seconds: float, closed: int) -> None:
    monkeypatch.setattr("ingestion.binance.rest.time.monotonic", FakeTime().clock)
    host = FakeHost([0, 1, 2, 3], now=START + timedelta(seconds=seconds))
    found = rest(host).klines(SERIES, START, START + 10 * MINUTE).parsed
    assert found.rows.num_rows == closed


def test_the_exchanges_clock_is_asked_once_and_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    host, ours = FakeHost(), FakeTime()
    monkeypatch.setattr("ingestion.binance.rest.time.monotonic", ours.clock)
    client = rest(host)
    assert client.now == NOW
    ours.sleep(90)
    assert client.now == NOW + timedelta(seconds=90)
    assert [name for name, _ in host.asked] == ["time"]


def test_the_first_bar_is_found_by_asking() -> None:
    host = FakeHost([7, 8])
    assert rest(host).first_open_time(SERIES) == START + 7 * MINUTE
    assert host.asked[0][1] == {"symbol": "BTCUSDT", "interval": "1m", "startTime": "0", "limit": "1"}
    assert rest(FakeHost()).first_open_time(SERIES) is None


# --- errors ----------------------------------------------------------------------------------------------------

PASSING = [-1000, -1001, -1003, -1006, -1007, -1008, -1015, -1016, -1034]
PERMANENT = [-1002, -1013, -1100, -1101, -1102, -1104, -1105, -1120, -1121, -1122, -1128, -1130, -1220, 0, 1, -2010]


@pytest.mark.parametrize("code", PASSING)
def test_a_code_that_passes_is_worth_another_try(code: int) -> None:
    host = FakeHost()
    klines(host, 0, 1)
    assert host.passes(answer({"code": code, "msg": "x"}, 400))
    assert not host.passes(answer({"code": code, "msg": "x"}, 200))


@pytest.mark.parametrize("code", PERMANENT)
def test_a_code_that_does_not_pass_is_refused_with_its_text(code: int) -> None:
    host = FakeHost()
    host.answers["klines"] = answer({"code": code, "msg": "Something is wrong."}, 400)
    with pytest.raises(ExchangeRefused) as caught:
        klines(host, 0, 1)
    assert not host.passes(host.answers["klines"])
    assert f"Something is wrong. ({code})" in caught.value.message
    assert len(host.asked) == 1


LEGAL = r"Illegal characters found in parameter 'symbol'; legal range is '^[\w\-._&&[^a-z]]{1,50}$'."


@pytest.mark.parametrize(("code", "text"), [(-1121, "Invalid symbol."), (-1100, LEGAL)])
def test_a_symbol_that_the_exchange_does_not_know_is_told_from_other_refusals(code: int, text: str) -> None:
    host = FakeHost()
    host.answers["klines"] = answer({"code": code, "msg": text}, 400)
    with pytest.raises(UnknownSymbol, match="BTCUSDT"):
        rest(host).first_open_time(SERIES)


def test_a_refused_number_is_not_taken_for_an_unknown_symbol() -> None:
    host = FakeHost()
    text = "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'."
    host.answers["klines"] = answer({"code": -1100, "msg": text}, 400)
    with pytest.raises(ExchangeRefused) as caught:
        rest(host).first_open_time(SERIES)
    assert not isinstance(caught.value, UnknownSymbol)


@pytest.mark.parametrize(
    "body", [b"", b"<html>404 Not found</html>", b"[]", b'{"code":1e999,"msg":""}', b"[" * 100_000]
)
def test_a_refusal_without_a_code_is_refused_too(body: bytes) -> None:
    host = FakeHost()
    host.answers["klines"] = answer(body, 404)
    with pytest.raises(ExchangeRefused, match="refused with HTTP 404"):
        klines(host, 0, 1)


MALFORMED = [
    b"",
    b"null",
    b"1",
    b'"x"',
    b"{}",
    b"[1]",
    b"[[]]",
    b"[[1,2,3]]",
    b"[[null,null,null,null,null,null,null,null,null,null,null,null]]",
    b"[" * 100_000,
    b"1" * 100_000,
    b"\xff\xfe",
    b"[[",
    b"<html><body>maintenance</body></html>",
    b'{"code":-1,"msg":"x"}',
    json.dumps([["open_time", *kline(0)[1:]]]).encode(),
    json.dumps([[True, *kline(0)[1:]]]).encode(),
    json.dumps([[kline(0)[0] * 100, *kline(0)[1:]]]).encode(),
    json.dumps([[kline(0)[0] // 1000, *kline(0)[1:]]]).encode(),
    json.dumps([[*kline(0), "13th"]]).encode(),
    json.dumps([[float(kline(0)[0]), *kline(0)[1:]]]).encode(),
    json.dumps([[*kline(0)[:1], 2.0, *kline(0)[2:]]]).encode(),
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:30]))
def test_an_answer_that_is_no_klines_is_malformed(body: bytes) -> None:
    host = FakeHost()
    host.answers["klines"] = answer(body)
    with pytest.raises(MalformedAnswer):
        klines(host, 0, 10)


@pytest.mark.parametrize(
    "body", [*MALFORMED[:15], b'{"serverTime":null}', b'{"serverTime":"1"}', b'{"serverTime":1e3}']
)
def test_a_clock_that_tells_no_time_is_malformed(body: bytes) -> None:
    host = FakeHost()
    host.answers["time"] = answer(body)
    with pytest.raises(MalformedAnswer):
        _ = rest(host).now


@pytest.mark.parametrize("body", [*MALFORMED[:15], b'{"symbols":{}}', b'{"symbols":[]}'])
def test_an_exchange_without_symbols_is_malformed(body: bytes) -> None:
    host = FakeHost()
    host.answers["exchangeInfo"] = answer(body)
    with pytest.raises(MalformedAnswer):
        rest(host).exchange_info()


def test_an_answer_without_end_is_malformed() -> None:
    class Endless(FakeHost):
        def get(self, url: str, fields: Mapping[str, str], *, passes: Callable[[Answer], bool]) -> Answer:
            raise TooLarge(f"{url} is larger than 1 MB")

    with pytest.raises(MalformedAnswer, match="larger than 1 MB"):
        klines(Endless(), 0, 1)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=30,
)
_rows = st.lists(st.lists(_json, min_size=12, max_size=12), max_size=3)


def _near_misses(edits: list[tuple[int, int]]) -> bytes:
    body = bytearray(json.dumps([kline(0), kline(1)]).encode())
    for position, value in edits:
        body[position % len(body)] = value
    return bytes(body)


@given(
    st.binary(max_size=300)
    | (_json | _rows).map(lambda value: json.dumps(value).encode())
    | st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=3).map(_near_misses),
    st.sampled_from([200, 400, 404]),
    st.sampled_from(["klines", "time", "exchangeInfo"]),
)
def test_whatever_a_host_answers_is_taken_or_refused(body: bytes, status: int, name: str) -> None:
    host = FakeHost([0])
    host.answers[name] = answer(body, status)
    client = rest(host)
    try:
        client.klines(SERIES, START, START + 10 * MINUTE)
        assert client.first_open_time(SERIES) is None or client.now
        client.exchange_info()
    except ExchangeRefused:
        pass


# --- weight ----------------------------------------------------------------------------------------------------


def _budget(limit: int) -> tuple[WeightBudget, FakeTime]:
    time = FakeTime(start=60_000.0)
    return WeightBudget(limit, time.sleep, time.clock), time


def test_the_weight_of_a_minute_stays_under_the_budget() -> None:
    budget, time = _budget(10)
    used: dict[float, int] = {}
    for _ in range(23):
        budget.take(2)
        minute = time.clock() // 60
        used[minute] = used.get(minute, 0) + 2
    assert used == {1000: 10, 1001: 10, 1002: 10, 1003: 10, 1004: 6}
    assert time.slept == [60.0] * 4


def test_what_others_use_counts_too() -> None:
    budget, time = _budget(10)
    budget.take(2)
    budget.correct("9")
    budget.take(2)
    assert time.slept == [60.0]


def test_a_lower_figure_of_the_exchange_frees_nothing() -> None:
    budget, time = _budget(10)
    budget.take(8)
    budget.correct("2")
    budget.take(4)
    assert time.slept == [60.0]


@pytest.mark.parametrize("used", [None, "", "many", "-5", "1.5"])
def test_a_header_that_is_no_number_changes_nothing(used: str | None) -> None:
    budget, time = _budget(10)
    budget.correct(used)
    budget.take(10)
    assert time.slept == []


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 60), st.integers(0, 10)), max_size=60))
def test_a_budget_is_never_exceeded(steps: list[tuple[int, int, int]]) -> None:
    """Against an exchange that counts our weight and others' in the same minutes, and tells after each request."""
    budget, time = _budget(40)
    ours: dict[float, int] = {}
    others: dict[float, int] = {}
    for weight, pause, foreign in steps:
        budget.take(weight)
        minute = time.clock() // 60
        assert ours.get(minute, 0) + others.get(minute, 0) + weight <= 40
        ours[minute] = ours.get(minute, 0) + weight
        others[minute] = others.get(minute, 0) + foreign
        budget.correct(str(ours[minute] + others[minute]))
        time.sleep(pause)


def test_each_request_takes_its_weight_and_learns_from_its_header() -> None:
    taken: list[object] = []

    class Budget(WeightBudget):
        def take(self, weight: int) -> None:
            taken.append(weight)

        def correct(self, used: str | None) -> None:
            taken.append(used)

    host = FakeHost()
    host.answers["klines"] = answer([], x_mbx_used_weight_1m="17")
    host.answers["exchangeInfo"] = answer({"symbols": [{}]}, x_mbx_used_weight_1m="37")
    client = rest(host, Budget(100))
    client.klines(SERIES, START, START + MINUTE)
    client.exchange_info()
    assert taken == [2, "17", 20, "37"]
