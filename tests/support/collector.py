"""The collector as a real process, and what it should have published."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import urllib3

from ingestion.bus.local import LocalBus
from ingestion.messages import KlineMessage
from tests.support.command import KLINEHOUSE
from tests.support.live import Bars

# Runs the command in this process, and says at its end which of these it has imported.
_CONFESSING = """
import sys
from klinehouse.cli import app
app(sys.argv[1:], standalone_mode=False)
print([name for name in ("dagster", "dbt", "duckdb", "google.cloud.pubsub_v1", "pandas") if name in sys.modules])
"""


class CollectorProcess:
    """`klinehouse collect` on a home, fed by the exchange at `exchange`; may be started again after its end."""

    def __init__(self, home: Path, exchange: str, **settings: Any) -> None:
        named = {"home": home, "archive_url": exchange, "collector_port": 0, "interval": "1m", **settings}
        self._environment = os.environ | {f"KLINEHOUSE_{name.upper()}": str(value) for name, value in named.items()}
        self._home = home
        self.process: Any = None  # a Popen, once it is started
        self.url = ""

    def start(self, *, confessing: bool = False) -> "CollectorProcess":
        """Returns when it listens."""
        command = [sys.executable, "-c", _CONFESSING] if confessing else [KLINEHOUSE]
        with (self._home.parent / "collector.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, "collect", "--json"], env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log()
        self.url = json.loads(line)["url"]
        return self

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = urllib3.request("GET", f"{self.url}/health", timeout=10, retries=False).json()
        return found

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate(timeout=20)

    def terminate(self) -> tuple[int, str]:
        """End it as a supervisor does; its exit code and the rest of its output."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output

    def log(self) -> str:
        return (self._home.parent / "collector.log").read_text()


def published(home: Path) -> list[KlineMessage]:
    """What is on the bus of a home, in order."""
    with LocalBus(home / "bus" / "bus.sqlite") as bus:
        bars = Bars(bus)
        count = -1
        while count != len(bars.all):
            count = len(bars.all)
            bars.read()
        return bars.all


def told(truth: Path) -> dict[tuple[str, int], list[str]]:
    """The bars that closed by the exchange's own account: values as the archive has them, by symbol and open time."""
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    return {(line["symbol"], line["open_time"]): line["values"] for line in lines}


def as_told(bar: KlineMessage) -> list[str]:
    """A bar as the truth has it; its close time to the millisecond, as streams and REST send it."""
    prices = [bar.open, bar.high, bar.low, bar.close, bar.volume]
    rest = [bar.quote_volume, str(bar.trades), bar.taker_buy_base_volume, bar.taker_buy_quote_volume]
    return [str(bar.open_time), *prices, str(bar.close_time), *rest]


def first_of_each(bars: Sequence[KlineMessage]) -> list[KlineMessage]:
    """Bars without those that were published again."""
    return list({bar.key: bar for bar in reversed(bars)}.values())[::-1]
