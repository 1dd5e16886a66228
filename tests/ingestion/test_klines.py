import calendar
import string
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.errors import UsageError
from ingestion.klines import INTERVAL_MICROS, KLINE_SCHEMA, Month, Series, month_window, months_between

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
EXCHANGE_INTERVALS = ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]

days = st.dates(date(2017, 1, 1), date(2100, 1, 1))
upper = st.text(string.ascii_uppercase + string.digits + "_&-", max_size=24)
months = days.map(Month.containing)
instants = st.datetimes(datetime(2017, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


# --- the schema ------------------------------------------------------------------------------------------------


def test_the_raw_table_has_the_fifteen_columns_of_the_contract() -> None:
    assert KLINE_SCHEMA.names == [
        "symbol",
        "interval",
        "open_time",
        "close_time",
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_volume",
        "trades",
        "taker_buy_base_volume",
        "taker_buy_quote_volume",
        "source",
        "ingested_at",
    ]


def test_no_raw_column_may_be_null() -> None:
    assert [field.name for field in KLINE_SCHEMA if field.nullable] == []


@pytest.mark.parametrize(
    "name",
    ["open", "high", "low", "close", "volume", "quote_volume", "taker_buy_base_volume", "taker_buy_quote_volume"],
)
def test_prices_and_volumes_are_decimals_that_fit_numeric(name: str) -> None:
    assert KLINE_SCHEMA.field(name).type == pa.decimal128(28, 8)


@pytest.mark.parametrize("name", ["open_time", "close_time", "ingested_at"])
def test_times_are_utc_microseconds(name: str) -> None:
    assert KLINE_SCHEMA.field(name).type == pa.timestamp("us", tz="UTC")


# --- intervals -------------------------------------------------------------------------------------------------


def test_the_intervals_are_the_sixteen_of_the_exchange() -> None:
    assert list(INTERVAL_MICROS) == EXCHANGE_INTERVALS


@pytest.mark.parametrize("interval", [i for i in EXCHANGE_INTERVALS if i != "1M"])
def test_the_length_of_an_interval_is_what_its_name_says(interval: str) -> None:
    assert INTERVAL_MICROS[interval] == int(interval[:-1]) * SECONDS[interval[-1]] * 1_000_000


# --- series ----------------------------------------------------------------------------------------------------


@given(upper.filter(bool), st.sampled_from(EXCHANGE_INTERVALS))
def test_a_series_takes_every_symbol_in_the_exchanges_letters(symbol: str, interval: str) -> None:
    assert str(Series(symbol, interval)) == f"{symbol} {interval}"


@pytest.mark.parametrize("symbol", ["BTCUSDT", "1000SATSUSDT", "A", "BTC_USDT-PERP", "BRK.B", "币安人生USDT", "A" * 50])
def test_a_series_takes_symbols_that_exist(symbol: str) -> None:
    assert Series(symbol, "5m").symbol == symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "",
        "btcusdt",
        "BTCUSDt",
        "A" * 51,
        ".",
        "..",
        ".HIDDEN",
        "A..B",
        "../BTCUSDT",
        "a/b",
        "A/B",
        "A\\B",
        "/ETC/PASSWD",
        "BTC\0USDT",
        "BTCUSDT\n",
        "BTC USDT",
        "*",
        "BTC?",
        "[A]",
        "%2E%2E",
        "'; DROP TABLE KLINES; --",
        '"BTCUSDT"',
        "`X`",
        "{{ TARGET }}",
        "{% RAW %}",
        "$HOME",
        "A,B",
        "A=B",
        "A:B",
        "A#B",
    ],
)
def test_a_series_refuses_a_hostile_symbol(symbol: str) -> None:
    with pytest.raises(UsageError, match="is not a symbol"):
        Series(symbol, "5m")


@given(upper, st.characters().filter(lambda c: not (c.isalnum() or c in "_.&-") or c in string.ascii_lowercase), upper)
def test_one_letter_that_means_something_elsewhere_makes_a_symbol_refused(head: str, hostile: str, tail: str) -> None:
    with pytest.raises(UsageError):
        Series(head + hostile + tail, "5m")


@pytest.mark.parametrize("interval", ["", "7m", "5M", "1mo", "1H", "60", "../5m", "5m ", "{{ interval }}"])
def test_a_series_refuses_an_interval_that_the_exchange_does_not_have(interval: str) -> None:
    with pytest.raises(UsageError, match="is not an interval"):
        Series("BTCUSDT", interval)


def test_a_refused_interval_names_the_intervals_to_choose_from() -> None:
    with pytest.raises(UsageError) as caught:
        Series("BTCUSDT", "7m")
    assert "1s 1m 3m" in caught.value.remedy


# --- months ----------------------------------------------------------------------------------------------------


@given(months)
def test_a_month_reads_what_it_writes(month: Month) -> None:
    assert Month.parse(str(month)) == month


@given(days)
def test_a_month_is_named_by_any_day_in_it(day: date) -> None:
    assert Month.parse(day.isoformat()) == Month(day.year, day.month)


@pytest.mark.parametrize("text", ["", "2024", "2024-7", "2024-00", "2024-13", "2024-02-30", "july", "2024/07"])
def test_text_that_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Month.parse(text)


@given(months)
def test_a_month_ends_where_the_next_one_starts(month: Month) -> None:
    assert month.end == month.next.start


@given(months)
def test_a_month_has_the_days_of_the_calendar(month: Month) -> None:
    count = calendar.monthrange(month.year, month.number)[1]
    assert list(month.days()) == [date(month.year, month.number, day) for day in range(1, count + 1)]


@given(months, months)
def test_months_are_ordered_as_their_first_days(one: Month, other: Month) -> None:
    assert (one < other, one <= other, one > other) == (
        one.first_day < other.first_day,
        one.first_day <= other.first_day,
        one.first_day > other.first_day,
    )


def test_the_edges_of_a_month_are_utc_midnights() -> None:
    month = Month(2024, 12)
    assert (month.start, month.end) == (datetime(2024, 12, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))


@given(days, st.integers(-400, 400))
def test_months_between_are_those_of_the_days_in_the_window(start: date, length: int) -> None:
    inside = [start + timedelta(days=offset) for offset in range(length)]
    expected = sorted({(day.year, day.month) for day in inside})
    assert [(m.year, m.number) for m in months_between(start, start + timedelta(days=length))] == expected


@given(instants, st.integers(1, 400 * 86_400_000_000))
def test_a_window_of_instants_touches_the_months_from_its_first_to_its_last_microsecond(
    start: datetime, micros: int
) -> None:
    end = start + timedelta(microseconds=micros)
    last = end - timedelta(microseconds=1)
    touched = month_window((start, end))
    assert (touched[0], touched[-1]) == (Month(start.year, start.month), Month(last.year, last.month))


def test_a_window_that_ends_at_a_month_does_not_touch_it() -> None:
    month = Month(2024, 7)
    assert month_window((month.start, month.end)) == [month]
