"""Whether the collector does its work, and if not, why: by the age of the data, not the state of a socket."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingestion.collector.core import Core
from ingestion.collector.metrics import Metrics
from ingestion.collector.publisher import Publisher
from ingestion.collector.shards import Shard
from ingestion.collector.spool import Spool
from ingestion.grid import instant

# The bus may be away for so many seconds before that is an alarm.
_BUS_GRACE = 60.0


@dataclass(frozen=True)
class Health:
    """Reads the parts of a running collector; from any thread."""

    core: Core
    shards: Sequence[Shard]
    spool: Spool
    publisher: Publisher
    metrics: Metrics
    stale_after: float

    def problems(self) -> list[str]:
        """What keeps bars from arriving or from being published; empty when all is well."""
        now = time.monotonic()
        found = []
        down = [shard.down_since for shard in self.shards if shard.down_since is not None]
        if down and now - min(down) > self.stale_after:
            found.append(f"not connected for {now - min(down):.0f} s")
        ages = [now - shard.data_at for shard in self.shards if shard.data_at is not None]
        if ages and max(ages) > self.stale_after:
            found.append(f"no bar heard for {max(ages):.0f} s")
        if self.spool.is_full:
            found.append(f"the spool is full with {self.spool.messages} messages; bars are fetched again later")
        stuck = self.publisher.stuck_since
        if stuck is not None and now - stuck > _BUS_GRACE:
            found.append(f"the bus has taken nothing for {now - stuck:.0f} s")
        return found

    @property
    def connected(self) -> bool:
        return all(shard.down_since is None for shard in self.shards)

    @property
    def last_message_age(self) -> float:
        """Seconds since the last bar was heard; NaN before the first."""
        last = self.core.last_heard
        return float("nan") if last is None else time.monotonic() - last

    def report(self) -> dict[str, Any]:
        """The answer of `GET /health`."""
        problems = self.problems()
        last = self.core.last_message
        behind = {str(series) for series in self.core.behind}
        return {
            "status": "unhealthy" if problems else "ok",
            "problems": problems,
            "websocket_connected": self.connected,
            "messages_received": self.metrics.total(self.metrics.frames),
            "candles_processed": self.metrics.total(self.metrics.bars),
            "messages_published": self.metrics.total(self.metrics.published),
            "errors": self.metrics.total(self.metrics.errors),
            "last_message_time": None if last is None else _text(datetime.fromtimestamp(last, UTC)),
            "last_message_age_s": None if last is None else round(self.last_message_age, 3),
            "spool_messages": self.spool.messages,
            "spool_bytes": self.spool.bytes,
            "series": {
                str(series): {
                    "last_closed_open_time": _text(instant(opened)) if opened else None,
                    "settled_until": _text(instant(settled)) if (settled := self.spool.watermark(series)) else None,
                    "catching_up": str(series) in behind,
                }
                for series, opened in self.core.closed_bars()
            },
        }

    def latest(self) -> list[dict[str, Any]]:
        """The answer of `GET /latest`: the last price of each series, of its open bar too."""
        return [
            {
                "symbol": series.symbol,
                "interval": series.interval,
                "price": state.price,
                "open_time": _text(instant(state.open_time)),
                "event_time": _text(instant(state.event_time)),
                "closed": state.closed,
            }
            for series, state in sorted(self.core.latest.copy().items())
        ]


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
