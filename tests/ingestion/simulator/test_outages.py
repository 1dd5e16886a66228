from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.exchanges import Exchange, comparable, instant, merged, millis, values

from ingestion.errors import UsageError
from ingestion.simulator.outages import Outage, in_order, utc_instant

# The outage of 2023-03-24 as the real exchange had it: quiet from 11:30, halted at 12:39:41.647, back at 14:00.
REAL = Outage.parse("2023-03-24T12:39:41.647/2023-03-24T14:00/69")
PLAIN = Outage.parse("2023-03-24T12:40/2023-03-24T14:00")
DAY = datetime(2023, 3, 24, tzinfo=UTC)


def at(hour: int, minute: int = 0) -> datetime:
    return DAY + timedelta(hours=hour, minutes=minute)


@pytest.fixture(params=[REAL, PLAIN], ids=["within a minute, after quiet", "on a minute"], scope="module")
def outage(request: pytest.FixtureRequest) -> Outage:
    return request.param


@pytest.fixture
def halted(exchange: Any, outage: Outage) -> Exchange:
    return exchange(outages=[outage])


def day_of(exchange: Exchange, interval: str) -> list[list[Any]]:
    ends = {"startTime": millis(DAY), "endTime": millis(DAY + timedelta(days=1)) - 1}
    rows = exchange.klines(interval=interval, **ends, limit=1000)
    if len(rows) == 1000:
        rows += exchange.klines(interval=interval, **ends | {"startTime": rows[-1][0] + 1}, limit=1000)
    return rows


# --- bars around a halt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "last", "next_open"),
    [
        ("1m", at(12, 39), at(14)),
        ("5m", at(12, 35), at(14)),
        ("15m", at(12, 30), at(14)),
        ("30m", at(12, 30), at(14)),
        ("1h", at(12), at(14)),
        ("2h", at(12), at(14)),
    ],
)
def test_bars_of_the_halt_are_absent(halted: Exchange, interval: str, last: datetime, next_open: datetime) -> None:
    opens = [instant(row[0]) for row in day_of(halted, interval)]
    assert opens[opens.index(last) + 1] == next_open


@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "30m", "1h", "2h"])
def test_the_bar_that_the_halt_met_ends_with_it(halted: Exchange, outage: Outage, interval: str) -> None:
    rows = day_of(halted, interval)
    met = max(row[0] for row in rows if row[0] < millis(outage.halt))
    assert [row[6] for row in rows if row[0] == met] == [millis(outage.halt) - 1]
    assert len({row[6] + 1 - row[0] for row in rows if row[0] != met}) == 1


@pytest.mark.parametrize(("interval", "hours"), [("4h", 4), ("6h", 6), ("12h", 12), ("1d", 24)])
def test_a_bar_longer_than_the_halt_closes_as_always(halted: Exchange, interval: str, hours: int) -> None:
    times = [(instant(row[0]), row[6] + 1 - row[0]) for row in day_of(halted, interval)]
    assert times == [(at(hour), hours * 3_600_000) for hour in range(0, 24, hours)]


@pytest.mark.parametrize("interval", ["5m", "15m", "1h", "2h", "4h", "1d"])
def test_longer_bars_are_the_minutes_that_there_are(halted: Exchange, interval: str) -> None:
    rows, minutes = day_of(halted, interval), day_of(halted, "1m")
    ends = [row[0] for row in rows[1:]] + [millis(DAY + timedelta(days=1))]
    for row, end in zip(rows, ends, strict=True):
        assert values(row) == merged([minute for minute in minutes if row[0] <= minute[0] < end])


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d"])
def test_the_archive_has_the_same_halt(halted: Exchange, interval: str) -> None:
    assert comparable(halted.archived("BTCUSDT", interval, "2023-03-24")) == comparable(day_of(halted, interval))


def test_bars_away_from_the_halt_are_those_of_the_seed(halted: Exchange, outage: Outage, plain: Exchange) -> None:
    away = [row for row in day_of(plain, "1m") if row[0] < millis(outage.quiet_from) or row[0] >= millis(at(14))]
    found = [row for row in day_of(halted, "1m") if row[0] < millis(outage.quiet_from) or row[0] >= millis(at(14))]
    assert found == away


def test_quiet_minutes_are_flat_at_the_last_price(exchange: Any) -> None:
    minutes = day_of(exchange(outages=[REAL]), "1m")
    quiet = [values(row) for row in minutes if at(11, 30) <= instant(row[0]) < at(14)]
    [before] = [row for row in minutes if instant(row[0]) == at(11, 29)]
    assert quiet == [(values(before)[3],) * 4 + (0,) * 5] * 70


def test_the_minute_of_the_halt_has_the_trades_before_it(exchange: Any, plain: Exchange) -> None:
    outage = Outage.parse("2023-03-24T12:39:40/2023-03-24T14:00")
    [cut] = [values(row) for row in day_of(exchange(outages=[outage]), "1m") if instant(row[0]) == at(12, 39)]
    [whole] = [values(row) for row in day_of(plain, "1m") if instant(row[0]) == at(12, 39)]
    assert float(cut[4]) == pytest.approx(float(whole[4]) * 2 / 3, abs=0.00002)
    assert cut[0] == whole[0]
    assert whole[2] <= cut[2] <= min(cut[0], cut[3]) <= max(cut[0], cut[3]) <= cut[1] <= whole[1]


def test_every_symbol_is_halted(exchange: Any) -> None:
    halted = exchange(outages=[PLAIN])
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "MATICUSDT"):
        assert halted.klines(symbol, "1m", startTime=millis(PLAIN.halt), endTime=millis(PLAIN.resume) - 1) == []


@pytest.mark.parametrize(("hour", "last"), [(12.5, at(12)), (13, at(12)), (13.9, at(12)), (14, at(14))])
def test_during_a_halt_the_last_bar_is_the_one_that_it_met(exchange: Any, hour: float, last: datetime) -> None:
    now = DAY + timedelta(hours=hour)
    assert exchange(outages=[PLAIN], now=now).opens(interval="1h", limit=1) == [last]


def test_a_halt_over_the_end_of_a_month_leaves_nothing_in_the_next(exchange: Any) -> None:
    outage = Outage.parse("2023-03-31T23:00:30/2023-04-01T02:00")
    opens = exchange(outages=[outage]).opens(interval="1m", startTime=millis(outage.halt) - 120_000, limit=4)
    assert [str(open_time)[5:16] for open_time in opens] == [
        "03-31 22:59",
        "03-31 23:00",
        "04-01 02:00",
        "04-01 02:01",
    ]


def test_a_market_with_an_outage_has_another_name(halted: Exchange, outage: Outage) -> None:
    assert halted.get("/").headers["x-klinehouse-simulated"] == f"seed 1, halted {outage}"


# --- how it is written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["2023-03-24T12:40:00/2023-03-24T14:00:00", "2023-03-24T12:39:41/2023-03-24T14:00:00/69"]
)
def test_an_outage_reads_as_it_is_written(text: str) -> None:
    assert str(Outage.parse(text)) == text


def test_a_time_with_a_zone_is_that_instant() -> None:
    assert utc_instant("2025-06-15T14:00+02:00") == utc_instant("2025-06-15T12:00")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an outage"),
        ("2023-03-24T12:40", "is not an outage"),
        ("2023-03-24T12:40/later", "is not an outage"),
        ("2023-03-24T12:40/2023-03-24T14:00/many", "is not an outage"),
        ("2023-03-24T14:00/2023-03-24T12:40", "ends before it begins"),
        ("2023-03-24T14:00/2023-03-24T14:00", "ends before it begins"),
        ("2023-03-24T12:40/2023-03-24T14:00:30", "ends within a minute"),
        ("2023-03-01T00:10/2023-03-01T14:00/11", "begins in another month"),
        ("2023-03-24T12:40/2023-03-24T14:00/-1", "begins in another month"),
    ],
)
def test_what_is_no_outage_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Outage.parse(text)


def test_outages_are_put_in_order_and_must_not_overlap() -> None:
    later = Outage.parse("2023-05-01T10:00/2023-05-01T11:00")
    assert in_order([later, REAL]) == (REAL, later)
    with pytest.raises(UsageError, match="overlap"):
        in_order([REAL, PLAIN])


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="'noon' is not a time"):
        utc_instant("noon")
