from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from support.exchanges import NOW, Exchange, comparable, instant, merged, millis, path_of, values

from ingestion.klines import INTERVAL_MICROS

LENGTHS = {name: timedelta(microseconds=length) for name, length in INTERVAL_MICROS.items() if length}
HOUR, DAY = LENGTHS["1h"], LENGTHS["1d"]
NOON = datetime(2024, 7, 9, 12, tzinfo=UTC)
MAKE = Callable[..., Exchange]


# --- which bars ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given"), [({}, 500), ({"limit": 7}, 7), ({"limit": 1000}, 1000), ({"limit": 1500}, 1000)]
)
@pytest.mark.parametrize(
    "ends", [{}, {"startTime": 0}, {"endTime": millis(NOW)}, {"startTime": 0, "endTime": millis(NOW)}]
)
def test_there_are_500_bars_and_at_most_1000(plain: Exchange, asked: dict, given: int, ends: dict) -> None:
    assert len(plain.klines(interval="1h", **asked, **ends)) == given


@pytest.mark.parametrize("interval", ["1m", "1h", "1d", "1M"])
@pytest.mark.parametrize("ends", [{}, {"startTime": 0}], ids=str)
def test_bars_come_in_order_of_time(plain: Exchange, interval: str, ends: dict) -> None:
    opens = plain.opens(interval=interval, **ends)
    assert all(earlier < later for earlier, later in pairwise(opens))


def test_without_times_come_the_newest(plain: Exchange) -> None:
    assert plain.opens(limit=3) == [datetime(2025, 6, 15, hour, tzinfo=UTC) for hour in (10, 11, 12)]


def test_a_start_alone_gives_the_oldest_from_it(plain: Exchange) -> None:
    assert plain.opens(startTime=millis(NOON), limit=3) == [NOON, NOON + HOUR, NOON + 2 * HOUR]


def test_an_end_alone_gives_the_newest_to_it(plain: Exchange) -> None:
    assert plain.opens(endTime=millis(NOON), limit=3) == [NOON - 2 * HOUR, NOON - HOUR, NOON]


def test_both_ends_give_the_oldest_and_nothing_beyond(plain: Exchange) -> None:
    ends = {"startTime": millis(NOON), "endTime": millis(NOON + 2 * HOUR)}
    assert plain.opens(**ends) == [NOON, NOON + HOUR, NOON + 2 * HOUR]
    assert plain.opens(**ends, limit=2) == [NOON, NOON + HOUR]


def test_a_bar_belongs_to_the_range_by_when_it_opens(plain: Exchange) -> None:
    just_after = millis(NOON) + 1
    assert plain.opens(startTime=just_after, limit=1) == [NOON + HOUR]
    assert plain.opens(startTime=just_after, endTime=millis(NOON + HOUR) - 1) == []
    assert plain.opens(startTime=millis(NOON), endTime=millis(NOON)) == [NOON]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, millis(datetime(2019, 12, 1, tzinfo=UTC))),
        (millis(NOW + HOUR), millis(NOW + DAY)),
        (millis(NOON), millis(NOON - HOUR)),
        (millis(NOON) // 1000, millis(NOON + DAY) // 1000),
        (millis(NOON) + 1, millis(NOON) + 2),
        (2**62, 2**63 - 1),
    ],
    ids=["before the listing", "in the future", "backwards", "seconds", "between two bars", "beyond all time"],
)
def test_a_range_without_bars_is_an_empty_list(plain: Exchange, start: int, end: int) -> None:
    response = plain.get(f"/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime={start}&endTime={end}")
    assert (response.status_code, response.content) == (200, b"[]")


@pytest.mark.parametrize(("start", "end"), [(NOON, NOON + 5 * HOUR), (datetime(2024, 6, 30, 20, tzinfo=UTC), NOON)])
def test_microseconds_ask_for_what_milliseconds_do(plain: Exchange, start: datetime, end: datetime) -> None:
    fine = plain.klines(startTime=millis(start) * 1000, endTime=millis(end) * 1000)
    assert fine == plain.klines(startTime=millis(start), endTime=millis(end))
    assert instant(fine[0][0]) == start


def test_history_begins_with_the_listing(plain: Exchange) -> None:
    [first] = plain.opens("SOLUSDT", "1m", startTime=0, limit=1)
    assert first == datetime(2020, 8, 11, 6, tzinfo=UTC)


def test_pages_make_the_history_without_hole_or_double(plain: Exchange) -> None:
    paged, start = [], millis(datetime(2024, 6, 28, tzinfo=UTC))
    end = millis(datetime(2024, 7, 3, tzinfo=UTC)) - 1
    while page := plain.klines(interval="1m", startTime=start, endTime=end, limit=1000):
        paged += page
        start = page[-1][0] + 1
    expected = [millis(datetime(2024, 6, 28, tzinfo=UTC)) + 60_000 * minute for minute in range(5 * 1440)]
    assert [row[0] for row in paged] == expected


# --- the form --------------------------------------------------------------------------------------------------


def test_a_row_has_twelve_values_of_their_kinds(plain: Exchange) -> None:
    [row] = plain.klines(startTime=millis(NOON), limit=1)
    assert [type(value) for value in row] == [int, *[str] * 5, int, str, int, str, str, str]
    assert all(len(row[place].partition(".")[2]) == 8 for place in (1, 2, 3, 4, 5, 7, 9, 10))
    assert row[11] == "0"


def test_the_body_is_compact(plain: Exchange) -> None:
    response = plain.get("/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=9")
    assert b" " not in response.content
    assert response.headers["content-type"] == "application/json;charset=UTF-8"


@pytest.mark.parametrize("unit", ["MICROSECOND", "microsecond"])
def test_times_come_in_microseconds_when_asked_for(plain: Exchange, unit: str) -> None:
    query = "symbol=BTCUSDT&interval=1h&limit=2"
    coarse = plain.get(f"/api/v3/klines?{query}").json()
    fine = plain.get(f"/api/v3/klines?{query}", headers={"X-MBX-TIME-UNIT": unit}).json()
    assert [(row[0], row[6]) for row in fine] == [(row[0] * 1000, row[6] * 1000 + 999) for row in coarse]
    assert [row[1:6] for row in fine] == [row[1:6] for row in coarse]


# --- one truth -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [name for name in INTERVAL_MICROS if name != "1s"])
@pytest.mark.parametrize(("symbol", "month"), [("BTCUSDT", 7), ("MATICUSDT", 9), ("POLUSDT", 9)])
def test_the_archive_has_the_bars_of_rest(plain: Exchange, symbol: str, month: int, interval: str) -> None:
    archived = plain.archived(symbol, interval.replace("1M", "1mo"), f"2024-{month:02d}")
    start, end = int(archived[0][0]), int(archived[-1][0])
    rows = []
    while page := plain.klines(symbol, interval, startTime=start, endTime=end, limit=1000):
        rows += page
        start = page[-1][0] + 1
    assert comparable(rows) == comparable(archived)


@pytest.fixture(scope="module")
def days(plain: Exchange) -> list[list[str]]:
    """The minutes of 2024-07-08, a Monday, and of the day after, from the archive's text."""
    return [row for day in ("2024-07-08", "2024-07-09") for row in plain.archived("BTCUSDT", "1m", day)]


@pytest.mark.parametrize("interval", ["3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"])
def test_a_bar_is_its_minutes(plain: Exchange, days: list[list[str]], interval: str) -> None:
    size = LENGTHS[interval] // timedelta(minutes=1)
    rows = plain.klines(interval=interval, startTime=int(days[0][0]), endTime=int(days[-1][0]), limit=1000)
    assert [values(row) for row in rows] == [merged(days[i : i + size]) for i in range(0, 2880, size)][:1000]
    assert [row[0] for row in rows] == [int(row[0]) for row in days[::size]][:1000]
    assert {row[6] - row[0] for row in rows} == {size * 60_000 - 1}


@pytest.mark.parametrize(("interval", "days"), [("3d", 3), ("1w", 7), ("1M", 31)])
def test_a_longer_bar_is_its_days(plain: Exchange, interval: str, days: int) -> None:
    [row] = plain.klines(interval=interval, startTime=millis(datetime(2024, 7, 1, tzinfo=UTC)), limit=1)
    parts = plain.klines(interval="1d", startTime=row[0], limit=days)
    assert row[6] + 1 - row[0] == millis(instant(row[0]) + days * DAY) - row[0]
    assert values(row) == merged(parts)


def test_weeks_open_on_monday(plain: Exchange) -> None:
    opens = plain.opens(interval="1w", startTime=0, limit=1000)
    assert {open_time.weekday() for open_time in opens} == {0}
    assert opens[0] == datetime(2019, 12, 30, tzinfo=UTC)
    assert all(later - earlier == 7 * DAY for earlier, later in pairwise(opens))


@pytest.mark.parametrize(
    ("symbol", "day"), [("BTCUSDT", "2020-01-01"), ("SOLUSDT", "2020-08-11"), ("POLUSDT", "2024-09-13")]
)
def test_three_days_are_counted_from_the_first_day_of_the_symbol(plain: Exchange, symbol: str, day: str) -> None:
    opens = plain.opens(symbol, "3d", startTime=0, limit=1000)
    assert opens[0] == datetime.fromisoformat(f"{day}T00:00Z")
    assert all(later - earlier == 3 * DAY for earlier, later in pairwise(opens))


# --- the open bar ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [name for name in INTERVAL_MICROS if name != "1s"])
def test_the_last_bar_is_open_and_closes_in_the_future(plain: Exchange, interval: str) -> None:
    before, last = plain.klines(interval=interval, limit=2)
    assert before[6] < millis(NOW) <= last[6]
    assert last[0] <= millis(NOW)


@pytest.mark.parametrize("interval", ["3m", "1h", "8h", "1d", "3d", "1w", "1M"])
def test_an_open_bar_is_the_minutes_so_far(plain: Exchange, interval: str) -> None:
    [bar] = plain.klines(interval=interval, limit=1)
    minutes, start = [], bar[0]
    while page := plain.klines(interval="1m", startTime=start, limit=1000):
        minutes += page
        start = page[-1][0] + 1
    assert values(bar) == merged(minutes)


def test_a_minute_fills_while_it_passes(exchange: MAKE) -> None:
    clock = [NOON]
    at = exchange(now=lambda: clock[0])
    seen = []
    for seconds in range(61):
        clock[0] = NOON + timedelta(seconds=seconds)
        seen.append(values(at.klines(interval="1m", startTime=millis(NOON), limit=1)[0]))
    first, last = seen[0], seen[-1]
    assert first == (first[0],) * 4 + (0,) * 5
    assert {bar[0] for bar in seen} == {first[0]}
    for place, grows in ((1, 1), (2, -1), *((place, 1) for place in range(4, 9))):
        assert all((later[place] - earlier[place]) * grows >= 0 for earlier, later in pairwise(seen))
    assert all(bar[2] <= min(bar[0], bar[3]) <= max(bar[0], bar[3]) <= bar[1] for bar in seen)
    assert last == values(exchange().klines(interval="1m", startTime=millis(NOON), limit=1)[0])
    assert 0 < seen[30][4] < last[4]


def test_nothing_of_the_future_is_told(exchange: MAKE) -> None:
    early, late = (exchange(now=now).klines(interval="1h", endTime=millis(NOON)) for now in (NOON, NOW))
    assert early[:-1] == late[:-1]
    assert early[-1] != late[-1]


# --- a listing that ended --------------------------------------------------------------------------------------


def test_an_ended_symbol_keeps_its_history(plain: Exchange) -> None:
    end = datetime(2024, 9, 10, 3, tzinfo=UTC)
    assert plain.opens("MATICUSDT", "1m", limit=2) == [end - timedelta(minutes=2), end - timedelta(minutes=1)]
    assert plain.opens("MATICUSDT", "1h", startTime=millis(end)) == []


def test_its_successor_starts_days_later(plain: Exchange) -> None:
    [first] = plain.opens("POLUSDT", "1m", startTime=0, limit=1)
    assert first == datetime(2024, 9, 13, 10, tzinfo=UTC)


def test_the_archive_of_an_ended_symbol_just_ends(plain: Exchange) -> None:
    last = plain.archived("MATICUSDT", "1h", "2024-09")[-1]
    assert instant(int(last[0])) == datetime(2024, 9, 10, 2, tzinfo=UTC)
    statuses = [plain.get(path_of("MATICUSDT", "1h", period)).status_code for period in ("2024-10", "2024-09-11")]
    assert statuses == [404, 404]


def test_a_symbol_is_unknown_before_its_first_minute(exchange: MAKE) -> None:
    at = exchange(now=datetime(2024, 9, 12, tzinfo=UTC))
    assert at.error("symbol=POLUSDT&interval=1h") == (400, -1121, "Invalid symbol.")


# --- time, ping, unknown paths ---------------------------------------------------------------------------------


def test_time_is_the_clock_of_the_exchange(plain: Exchange) -> None:
    assert plain.get("/api/v3/time").json() == {"serverTime": millis(NOW)}
    fine = plain.get("/api/v3/time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert fine.json() == {"serverTime": millis(NOW) * 1000}


def test_ping_answers_with_nothing(plain: Exchange) -> None:
    assert plain.get("/api/v3/ping").content == b"{}"


@pytest.mark.parametrize(("accept", "page"), [("text/html", "<h2>404 Not found</h2>"), ("*/*", "")])
def test_an_unknown_path_is_404(plain: Exchange, accept: str, page: str) -> None:
    response = plain.get("/api/v3/nothing", headers={"accept": accept})
    assert response.status_code == 404
    assert page in response.text
    assert bool(response.text) == bool(page)
