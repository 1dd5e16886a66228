"""What the simulated exchange lists: five symbols, and as many more as a load test asks for."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

UNIT = 10**8


@dataclass(frozen=True)
class Listing:
    """What the simulated exchange trades: first minute, first price, tick and lot in units of 10^-8, hourly volume.

    A listing that ended has no minute from `end` on. One that follows another shares its walk of monthly price levels.
    """

    first: datetime
    price: float
    tick: int
    lot: int
    base_volume: float
    yearly_growth: float
    minute_volatility: float
    end: datetime | None = None
    follows: str | None = None


LISTINGS: dict[str, Listing] = {
    "BTCUSDT": Listing(datetime(2020, 1, 1, tzinfo=UTC), 7_195.0, 1_000_000, 1_000, 25.0, 0.45, 0.0008),
    "ETHUSDT": Listing(datetime(2020, 1, 1, tzinfo=UTC), 129.0, 1_000_000, 10_000, 300.0, 0.50, 0.0010),
    "SOLUSDT": Listing(datetime(2020, 8, 11, 6, tzinfo=UTC), 3.2, 10_000, 10_000, 4_000.0, 0.65, 0.0014),
    "MATICUSDT": Listing(
        first=datetime(2020, 1, 1, tzinfo=UTC),
        price=0.35,
        tick=10_000,
        lot=10_000_000,
        base_volume=300_000.0,
        yearly_growth=0.05,
        minute_volatility=0.0013,
        end=datetime(2024, 9, 10, 3, tzinfo=UTC),
    ),
    "POLUSDT": Listing(
        first=datetime(2024, 9, 13, 10, tzinfo=UTC),
        price=0.35,
        tick=10_000,
        lot=10_000_000,
        base_volume=300_000.0,
        yearly_growth=0.05,
        minute_volatility=0.0013,
        follows="MATICUSDT",
    ),
}


def more_listings(count: int) -> dict[str, Listing]:
    """SIM001USDT, SIM002USDT ...: prices from cents to thousands, listed one after the other from 2020 to 2022."""
    return {f"SIM{number:03d}USDT": _listing(number) for number in range(1, count + 1)}


def _listing(number: int) -> Listing:
    """The same for the same number; about half a million of quote volume an hour, times one to eight."""
    magnitude = number % 6 - 2
    price = (1 + number * 7 % 9) * 10.0**magnitude
    tick = 10 ** (magnitude + 4)
    return Listing(
        first=datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number * 97 % 900, hours=number % 24),
        price=price,
        tick=tick,
        lot=max(UNIT // tick, 1_000),
        base_volume=500_000.0 * (1 + number % 8) / price,
        yearly_growth=0.05 * (number % 10),
        minute_volatility=0.0008 + 0.0001 * (number % 8),
    )
