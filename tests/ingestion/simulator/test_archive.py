import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta

import pytest

from ingestion.klines import Month, Series
from ingestion.simulator.archive import Files, market_files
from ingestion.simulator.market import Market

NOW = datetime(2025, 6, 1, tzinfo=UTC)
MILLISECONDS = re.compile(r"\d{13}")
MICROSECONDS = re.compile(r"\d{16}")
DECIMAL = re.compile(r"\d+\.\d{8}")


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(1)


@pytest.fixture(scope="module")
def files(market: Market) -> Files:
    return market_files(market, lambda: NOW)


def monthly(period: str, interval: str = "1h", symbol: str = "BTCUSDT") -> str:
    return f"data/spot/monthly/klines/{symbol}/{interval}/{symbol}-{interval}-{period}.zip"


def daily(period: str, interval: str = "1h", symbol: str = "BTCUSDT") -> str:
    return f"data/spot/daily/klines/{symbol}/{interval}/{symbol}-{interval}-{period}.zip"


def text_of(files: Files, path: str) -> str:
    with zipfile.ZipFile(io.BytesIO(files(path))) as archive:
        return archive.read(archive.namelist()[0]).decode()


def rows_of(files: Files, path: str) -> list[list[str]]:
    return [line.split(",") for line in text_of(files, path).splitlines()]


# --- the form of a file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [monthly("2024-07"), daily("2024-07-09"), monthly("2024-07", "1mo")])
def test_a_zip_holds_one_member_of_its_own_name(files: Files, path: str) -> None:
    with zipfile.ZipFile(io.BytesIO(files(path))) as archive:
        assert archive.namelist() == [path.rsplit("/", 1)[-1].replace(".zip", ".csv")]


def test_a_file_has_twelve_columns_without_a_header(files: Files) -> None:
    assert {len(row) for row in rows_of(files, monthly("2024-07"))} == {12}


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
def test_decimals_have_eight_digits(files: Files, symbol: str) -> None:
    rows = rows_of(files, daily("2024-07-09", "1m", symbol))
    decimals = [row[column] for row in rows for column in (1, 2, 3, 4, 5, 7, 9, 10)]
    assert [text for text in decimals if not DECIMAL.fullmatch(text)] == []


def test_the_text_says_what_the_market_says(market: Market, files: Files) -> None:
    bars = market.bars(Series("BTCUSDT", "1h"), Month(2024, 7))
    rows = rows_of(files, monthly("2024-07"))
    names = dict(enumerate(["open", "high", "low", "close", "volume"], start=1))
    names |= dict(enumerate(["quote_volume", "trades", "taker_buy_base_volume", "taker_buy_quote_volume"], start=7))
    for column, name in names.items():
        assert [int(row[column].replace(".", "")) for row in rows] == getattr(bars, name).tolist()


def test_the_last_column_is_an_unquoted_zero(files: Files) -> None:
    assert {row[11] for row in rows_of(files, monthly("2024-07"))} == {"0"}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (monthly("2024-12"), MILLISECONDS),
        (daily("2024-12-31"), MILLISECONDS),
        (daily("2025-01-01"), MICROSECONDS),
        (monthly("2025-01"), MICROSECONDS),
    ],
)
def test_times_are_milliseconds_to_2024_and_microseconds_from_2025(
    files: Files, path: str, unit: re.Pattern[str]
) -> None:
    times = [row[column] for row in rows_of(files, path) for column in (0, 6)]
    assert [text for text in times if not unit.fullmatch(text)] == []


@pytest.mark.parametrize(("period", "hour"), [("2024-12", 3_600_000), ("2025-01", 3_600_000_000)])
def test_a_bar_closes_one_unit_before_the_next_opens(files: Files, period: str, hour: int) -> None:
    assert {int(row[6]) - int(row[0]) for row in rows_of(files, monthly(period))} == {hour - 1}


@pytest.mark.parametrize(("period", "days"), [("2024-02", 29), ("2024-07", 31), ("2025-03", 31)])
def test_a_calendar_month_closes_with_the_month(files: Files, period: str, days: int) -> None:
    [row] = rows_of(files, monthly(period, "1mo"))
    length = int(row[6]) + 1 - int(row[0])
    assert length == days * 86_400 * {13: 1_000, 16: 1_000_000}[len(row[0])]


def test_the_days_of_a_month_are_the_month(files: Files) -> None:
    days = [date(2024, 7, 1) + timedelta(days=offset) for offset in range(31)]
    assert "".join(text_of(files, daily(day.isoformat())) for day in days) == text_of(files, monthly("2024-07"))


def test_solana_starts_on_2020_08_11_at_six(files: Files) -> None:
    rows = rows_of(files, monthly("2020-08", "5m", "SOLUSDT"))
    assert rows[0][0] == str(int(datetime(2020, 8, 11, 6, tzinfo=UTC).timestamp() * 1000))


@pytest.mark.parametrize("path", [monthly("2020-07", symbol="SOLUSDT"), daily("2020-08-10", symbol="SOLUSDT")])
def test_solana_has_no_file_before_its_first_bar(files: Files, path: str) -> None:
    assert files(path) is None


# --- the same bytes --------------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_bytes(files: Files) -> None:
    assert market_files(Market(1), lambda: NOW)(monthly("2024-07")) == files(monthly("2024-07"))


def test_another_seed_gives_other_bytes(files: Files) -> None:
    assert market_files(Market(2), lambda: NOW)(monthly("2024-07")) != files(monthly("2024-07"))


def test_a_month_is_the_same_bytes_after_others_were_asked_for(files: Files) -> None:
    busy = market_files(Market(1), lambda: NOW)
    for path in (
        monthly("2023-01"),
        daily("2024-07-02"),
        monthly("2024-07", "1d"),
        monthly("2024-06", symbol="ETHUSDT"),
    ):
        busy(path)
    assert busy(monthly("2024-07")) == files(monthly("2024-07"))


_DIGEST = """
import hashlib, sys
from datetime import UTC, datetime
from ingestion.simulator.archive import market_files
from ingestion.simulator.market import Market
print(hashlib.sha256(market_files(Market(1), lambda: datetime(2025, 6, 1, tzinfo=UTC))(sys.argv[1])).hexdigest())
"""


def test_another_process_gives_the_same_bytes(files: Files) -> None:
    path = monthly("2024-07")
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    process = subprocess.run([sys.executable, "-c", _DIGEST, path], env=environment, capture_output=True, check=True)
    assert process.stdout.decode().strip() == hashlib.sha256(files(path)).hexdigest()


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        (monthly("2024-07"), "1719792000000,36862.04000000,37037.93000000,36688.93000000,36989.94000000,28.36055000"),
        (monthly("2020-08", "5m", "SOLUSDT"), "1597125600000,6.96940000,6.98350000,6.96870000,6.98180000,129.59160000"),
        (
            daily("2025-03-05", "1d", "ETHUSDT"),
            "1741132800000000,1855.04000000,1877.81000000,1755.66000000,1776.95000000",
        ),
    ],
)
def test_seed_1_is_the_market_that_it_has_always_been(files: Files, path: str, begins: str) -> None:
    assert text_of(files, path).startswith(f"{begins},")


def test_a_week_that_reaches_into_the_next_month_is_there_when_it_is_over(market: Market) -> None:
    path, end = monthly("2024-07", "1w"), datetime(2024, 8, 5, tzinfo=UTC)
    assert market_files(market, lambda: end - timedelta(microseconds=1))(path) is None
    assert len(rows_of(market_files(market, lambda: end), path)) == 5


# --- when a file is there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "end"),
    [
        (monthly("2024-07"), datetime(2024, 8, 1, tzinfo=UTC)),
        (monthly("2024-12"), datetime(2025, 1, 1, tzinfo=UTC)),
        (daily("2024-07-09"), datetime(2024, 7, 10, tzinfo=UTC)),
        (daily("2024-07-31"), datetime(2024, 8, 1, tzinfo=UTC)),
    ],
)
class TestAFileAppearsWhenItsTimeIsOver:
    def test_it_is_absent_until_then(self, market: Market, path: str, end: datetime) -> None:
        assert market_files(market, lambda: end - timedelta(microseconds=1))(path) is None

    def test_it_is_there_from_then(self, market: Market, path: str, end: datetime) -> None:
        assert market_files(market, lambda: end)(path) is not None


def test_a_file_made_while_absent_appears_later(market: Market) -> None:
    now = [datetime(2024, 7, 31, tzinfo=UTC), datetime(2024, 8, 1, tzinfo=UTC)]
    served = market_files(market, lambda: now[0])
    served(monthly("2024-07"))
    now.pop(0)
    assert served(monthly("2024-07")) is not None


@pytest.mark.parametrize("interval", ["3d", "1w", "1mo"])
def test_there_are_no_daily_files_of_intervals_longer_than_a_day(files: Files, interval: str) -> None:
    assert files(daily("2024-07-01", interval)) is None


@pytest.mark.parametrize(
    "path",
    [
        "data/spot/monthly/klines/BTCUSDT/1h/ETHUSDT-1h-2024-07.zip",
        "data/spot/monthly/klines/BTCUSDT/1h/BTCUSDT-5m-2024-07.zip",
        "data/spot/weekly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-07.zip",
        "data/futures/um/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-07.zip",
        monthly("2024-07-01"),
        daily("2024-07"),
        monthly("2024-13"),
        daily("2024-02-30"),
        monthly("2024-07", "7m"),
        monthly("2024-07", symbol="btcusdt"),
        monthly("2024-07", symbol="DOGEUSDT"),
        monthly("2024-07", symbol=".."),
        monthly("2019-12"),
        monthly("2024-07").replace(".zip", ".csv"),
        monthly("2024-07") + "/",
        "",
    ],
)
def test_a_path_that_the_archive_does_not_have_is_absent(files: Files, path: str) -> None:
    assert files(path) is None
