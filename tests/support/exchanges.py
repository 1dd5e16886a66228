"""A client of the simulated exchange within the test's own process, and plain-Python readings of what it answers."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from starlette.testclient import TestClient

NOW = datetime(2025, 6, 15, 12, 0, 30, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Exchange(TestClient):
    """A simulated exchange within the test's own process."""

    def klines(self, symbol: str = "BTCUSDT", interval: str = "1h", **parameters: Any) -> list[list[Any]]:
        """The rows of a klines request that must succeed."""
        response = self.get("/api/v3/klines", params={"symbol": symbol, "interval": interval, **parameters})
        assert response.status_code == 200, response.text
        return response.json()

    def opens(self, symbol: str = "BTCUSDT", interval: str = "1h", **parameters: Any) -> list[datetime]:
        return [instant(row[0]) for row in self.klines(symbol, interval, **parameters)]

    def archived(self, symbol: str, interval: str, period: str) -> list[list[str]]:
        """The rows of an archive file, monthly or daily by its period."""
        with zipfile.ZipFile(io.BytesIO(self.get(path_of(symbol, interval, period)).content)) as archive:
            return [line.split(",") for line in archive.read(archive.namelist()[0]).decode().splitlines()]

    def error(self, query: str, path: str = "/api/v3/klines", **headers: str) -> tuple[int, int, str]:
        """HTTP status, code and message of a refused request."""
        response = self.get(f"{path}?{query}", headers=headers)
        return response.status_code, response.json()["code"], response.json()["msg"]


def path_of(symbol: str, interval: str, period: str) -> str:
    kind = "monthly" if len(period) == 7 else "daily"
    return f"/data/spot/{kind}/klines/{symbol}/{interval}/{symbol}-{interval}-{period}.zip"


def instant(millis: int) -> datetime:
    return EPOCH + timedelta(milliseconds=millis)


def millis(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def comparable(rows: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Rows of either face: times in milliseconds, numbers exact."""
    found = []
    for row in rows:
        opened, closed = (int(row[place]) // (1000 if len(str(row[place])) == 16 else 1) for place in (0, 6))
        found.append((opened, *map(Decimal, row[1:6]), closed, *map(Decimal, row[7:11])))
    return found


def merged(rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """The values of one bar from those of its parts, without its times: five numbers, then four."""
    parts = comparable(rows)
    columns = list(zip(*parts, strict=True))
    sums = [sum(columns[place]) for place in (5, 7, 8, 9, 10)]
    return (parts[0][1], max(columns[2]), min(columns[3]), parts[-1][4], *sums)


def values(row: Sequence[Any]) -> tuple[Any, ...]:
    """What `merged` gives, of a bar that is already one."""
    [bar] = comparable([row])
    return (*bar[1:6], *bar[7:11])
