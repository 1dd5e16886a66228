import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from starlette.responses import Response
from support.exchanges import NOW, Exchange, millis

from ingestion.simulator.faults import Faults
from ingestion.simulator.limits import Limits
from ingestion.simulator.trouble import Trouble

KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=1"


class Stopwatch:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.time = 6_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def limited(stopwatch: Stopwatch) -> Callable[..., Limits]:
    return lambda **faults: Limits(Trouble(Faults(**faults), 1), lambda: NOW, stopwatch)


def statuses(limits: Limits, requests: int, weight: int = 1) -> list[int]:
    answers = [limits.take(weight) for _ in range(requests)]
    return [answer.status_code if answer else 200 for answer in answers]


def refusal(limits: Limits) -> Response:
    answer = limits.take(1)
    assert answer is not None
    return answer


@pytest.mark.parametrize(
    ("path", "weight"),
    [(KLINES, 2), ("/api/v3/exchangeInfo", 20), ("/api/v3/time", 1), ("/api/v3/ping", 1), ("/api/v3/klines", 2)],
)
def test_every_answer_tells_the_weight_used_so_far(exchange: Any, path: str, weight: int) -> None:
    at: Exchange = exchange()
    for used in (weight, 2 * weight):
        headers = at.get(path).headers
        assert (headers["x-mbx-used-weight"], headers["x-mbx-used-weight-1m"]) == (str(used), str(used))


def test_the_real_limit_is_6000_a_minute(limited: Callable[..., Limits]) -> None:
    assert statuses(limited(), 3002, weight=2) == [200] * 3000 + [429] * 2


def test_used_weight_is_forgotten_with_the_window(limited: Callable[..., Limits], stopwatch: Stopwatch) -> None:
    limits = limited(weight_limit=2)
    assert statuses(limits, 3) == [200, 200, 429]
    stopwatch.time += 59.9
    assert statuses(limits, 1) == [429]
    stopwatch.time += 0.1
    assert statuses(limits, 2) == [200, 200]
    assert limits.headers()["x-mbx-used-weight"] == "2"


def test_beyond_the_limit_the_answer_is_429_and_says_when_to_come_again(exchange: Any) -> None:
    at: Exchange = exchange(faults=Faults(weight_limit=3))
    assert [at.get(KLINES).status_code for _ in range(2)] == [200, 429]
    response = at.get(KLINES)
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.headers["x-mbx-used-weight-1m"] == "6"
    assert response.json() == {
        "code": -1003,
        "msg": "Too much request weight used; current limit is 3 request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
    }


def test_waiting_for_retry_after_is_enough(limited: Callable[..., Limits], stopwatch: Stopwatch) -> None:
    limits = limited(weight_limit=0, weight_window=7.5)
    stopwatch.time += 3
    waiting = int(refusal(limits).headers["retry-after"])
    stopwatch.time += waiting
    assert limits.take(0) is None


def test_going_on_after_429_is_a_ban(limited: Callable[..., Limits]) -> None:
    assert statuses(limited(weight_limit=1, patience=3), 7) == [200, 429, 429, 429, 418, 418, 418]


def test_a_ban_says_until_when(limited: Callable[..., Limits], stopwatch: Stopwatch) -> None:
    limits = limited(weight_limit=0, patience=0, ban_seconds=90)
    response = refusal(limits)
    until = millis(NOW + timedelta(seconds=90))
    assert (response.status_code, response.headers["retry-after"]) == (418, "90")
    assert f'"code":-1003,"msg":"Way too much request weight used; IP banned until {until}. ' in response.body.decode()
    stopwatch.time += 60
    assert refusal(limits).headers["retry-after"] == "30"


def test_each_ban_is_twice_as_long_up_to_three_days(limited: Callable[..., Limits], stopwatch: Stopwatch) -> None:
    limits = limited(weight_limit=0, patience=0, ban_seconds=100)
    lengths = []
    for _ in range(13):
        lengths.append(int(refusal(limits).headers["retry-after"]))
        stopwatch.time += lengths[-1]
    assert lengths == [*(100 * 2**ban for ban in range(12)), 259_200]


def test_requests_of_the_banned_are_counted(exchange: Any) -> None:
    at: Exchange = exchange(faults=Faults(weight_limit=1, patience=2))
    assert [at.get("/api/v3/ping").status_code for _ in range(7)] == [200, 429, 429, 418, 418, 418, 418]
    assert at.get("/simulator/requests").json() == {"ping": 7, "while_banned": 3}
    assert at.get("/simulator/fired").json()["fired"] == {"429": 2, "418": 4, "ban": 1, "archive_differs": 0}


def test_the_archive_has_no_weight_and_no_ban(exchange: Any) -> None:
    at: Exchange = exchange(faults=Faults(weight_limit=0, patience=0))
    assert at.get("/api/v3/ping").status_code == 418
    assert at.get("/data/spot/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-2024-07.zip").status_code == 200


def test_no_weight_is_lost_between_threads(limited: Callable[..., Limits]) -> None:
    limits = limited(weight_limit=800)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(statuses(limits, 200))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 800
    assert limits.headers()["x-mbx-used-weight"] == "800"
