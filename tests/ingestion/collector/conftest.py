"""A collector in this process, collecting from a scripted exchange onto a local bus."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import urllib3

from ingestion.bus.local import LocalBus
from ingestion.collector.service import Service
from ingestion.settings import Settings, load_settings
from tests.support.live import Bars, BrokenBus, LiveExchange, live, serving, until

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost


class Collecting:
    """One home, its bus, and collectors on it, one after another."""

    def __init__(self, exchange: LiveExchange, home: Path) -> None:
        self.exchange, self.home = exchange, home
        self._bus = LocalBus(home / "bus" / "bus.sqlite")
        self.bus = BrokenBus(self._bus)
        self.bars = Bars(self._bus)
        self.url = ""
        self._stack = ExitStack()

    def settings(self, **changed: Any) -> Settings:
        chosen: dict[str, Any] = {
            "home": self.home,
            "archive_url": self.exchange.rest.url,
            "rest_url": self.exchange.rest.url,
            "stream_url": self.exchange.url,
            "symbols": ",".join(one.symbol for one in self.exchange.series),
            "interval": self.exchange.series[0].interval,
            "collector_port": 0,
            "http_attempts": 1,
        }
        return load_settings(**(chosen | changed))

    def start(self, **changed: Any) -> "Collecting":
        """Start a collector; returns when it is subscribed, and has caught up."""
        self.url = self._stack.enter_context(serving(Service(self.settings(**changed), self.bus)))
        until(self.is_settled, seconds=60, every=0.05)
        return self

    def is_settled(self) -> bool:
        """Whether it streams and fetches nothing."""
        report = self.ask("/health")[1]
        series = report.get("series", {}).values()
        return bool(series) and report["websocket_connected"] and not any(one["catching_up"] for one in series)

    def stop(self) -> None:
        self._stack.close()

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a page of the collector."""
        answer = urllib3.request("GET", f"{self.url}{path}", timeout=10, retries=False)
        return answer.status, answer.json()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = urllib3.request("GET", f"{self.url}/metrics", timeout=10).data.decode().splitlines()
        found = [line for line in lines if line.split("{")[0].split(" ")[0] == f"klinehouse_collector_{name}"]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def close(self) -> None:
        self.stop()
        self._bus.close()


@pytest.fixture
def exchange(host: "ArchiveHost") -> Iterator[LiveExchange]:
    with live(host) as found:
        yield found


@pytest.fixture
def collecting(exchange: LiveExchange, tmp_path: Path) -> Iterator[Collecting]:
    found = Collecting(exchange, tmp_path / "home")
    yield found
    found.close()
