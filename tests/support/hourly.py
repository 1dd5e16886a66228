"""Landing months of one hourly series from a scripted host into a zone of its own."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ingestion.binance.archive import daily_path, monthly_path
from ingestion.binance.exchange import Exchange
from ingestion.history.month import MonthResult, land_month
from ingestion.history.sources import Sources
from ingestion.klines import Month, Series
from ingestion.raw_zone import RawZone
from ingestion.settings import Settings, load_settings

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

SERIES = Series("BTCUSDT", "1h")
JULY = Month(2024, 7)
JULY_ZIP = monthly_path(SERIES, JULY)
LATER = datetime(2024, 10, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(day: int, hour: int = 10) -> datetime:
    return datetime(2024, 7, day, hour, tzinfo=UTC)


def hours_of(*days: int) -> list[datetime]:
    return [at(day, hour) for day in days for hour in range(24)]


def _millis(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(milliseconds=1)


def kline(opens: datetime, price: str = "1.00000000") -> list[Any]:
    """An hourly bar as REST sends it."""
    end = _millis(opens) + 3_599_999
    amounts = ["5.00000000", 7, "2.00000000", "2.00000000", "0"]
    return [_millis(opens), price, price, price, price, "5.00000000", end, *amounts]


def hours(start: datetime, end: datetime, price: str = "1.00000000", missing: tuple[datetime, ...] = ()) -> bytes:
    """The CSV of the hourly bars that open in `[start, end)`, all at one price."""
    opens = [start + i * HOUR for i in range((end - start) // HOUR)]
    return "".join(",".join(map(str, kline(one, price))) + "\n" for one in opens if one not in missing).encode()


class Publisher:
    """What the scripted host publishes of the series."""

    def __init__(self, host: ArchiveHost) -> None:
        self.host = host

    def month(self, month: Month = JULY, price: str = "1.00000000", missing: tuple[datetime, ...] = ()) -> bytes:
        return self.host.publish(monthly_path(SERIES, month), hours(month.start, month.end, price, missing))

    def days(self, *days: int, price: str = "1.00000000") -> None:
        for day in days:
            self.host.publish(daily_path(SERIES, date(2024, 7, day)), hours(at(day, 0), at(day, 0) + 24 * HOUR, price))

    def rest(self, start: datetime, end: datetime, price: str = "1.00000000") -> None:
        """REST has the bars that open in `[start, end)`, and those that it had."""
        rows = self.host.klines.setdefault((SERIES.symbol, SERIES.interval), [])
        rows += [kline(start + i * HOUR, price) for i in range((end - start) // HOUR)]

    def break_file(self, path: str = JULY_ZIP) -> None:
        self.host.script(path, b"broken")


class Landing:
    """Lands months of the series into one zone; `now` is our clock and the exchange's."""

    def __init__(self, host: ArchiveHost, zone: RawZone) -> None:
        self.host, self.zone = host, zone
        self.settings: Settings = load_settings(
            archive_url=host.url, rest_url=host.url, http_attempts=2, max_file_mb=1, raw_url=zone.root, max_wait=0
        )

    def months(self, *months: Month, now: datetime = LATER, series: Series = SERIES) -> list[MonthResult]:
        self.host.time = now
        with Exchange(self.settings) as exchange:
            sources = Sources(exchange, self.zone)
            return [land_month(sources, series, month, now) for month in months]

    def july(self, now: datetime = LATER) -> MonthResult:
        return self.months(JULY, now=now)[0]

    def opens(self, month: Month = JULY) -> list[datetime]:
        return self.zone.read_history(SERIES, month)["open_time"].to_pylist()

    def bars(self, month: Month = JULY) -> list[tuple[datetime, str, str]]:
        """Open time, source and close of each bar that has landed."""
        rows = self.zone.read_history(SERIES, month)
        return [(row["open_time"], row["source"], f"{row['close']:.2f}") for row in rows.to_pylist()]
