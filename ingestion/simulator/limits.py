"""The REST face's limit on request weight: 429 beyond it, 418 for those who go on.

All callers count as one address, as they do behind one router.
"""

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from starlette.responses import JSONResponse, Response

from ingestion.simulator.trouble import Trouble

_LONGEST_BAN = 3 * 86_400.0


class Limits:
    """Counts weight in windows of time that passes really, whatever the exchange's own clock shows."""

    def __init__(
        self, trouble: Trouble, now: Callable[[], datetime], elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        self._trouble, self._faults = trouble, trouble.faults
        self._now, self._elapsed = now, elapsed
        self._lock = threading.Lock()
        self._window = self._used = self._refused = self._bans = 0
        self._banned_until = -math.inf

    def take(self, weight: int) -> Response | None:
        """Count a request; an answer when it is refused."""
        with self._lock:
            instant = self._elapsed()
            if instant < self._banned_until:
                self._trouble.count_request("while_banned")
                return self._banned(self._banned_until - instant)
            window = int(instant / self._faults.weight_window)
            if window != self._window:
                self._window, self._used, self._refused = window, 0, 0
            self._used += weight
            if self._used <= self._faults.weight_limit:
                return None
            self._refused += 1
            if self._refused <= self._faults.patience:
                return self._too_much((window + 1) * self._faults.weight_window - instant)
            length = min(self._faults.ban_seconds * 2**self._bans, _LONGEST_BAN)
            self._bans += 1
            self._banned_until = instant + length
            self._refused = 0
            self._trouble.fire("ban")
            return self._banned(length)

    def headers(self) -> dict[str, str]:
        """The used weight, as every answer tells it."""
        with self._lock:
            return {"x-mbx-used-weight": str(self._used), "x-mbx-used-weight-1m": str(self._used)}

    def _too_much(self, left: float) -> Response:
        self._trouble.fire("429")
        message = (
            f"Too much request weight used; current limit is {self._faults.weight_limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API."
        )
        return _refusal(429, message, left)

    def _banned(self, left: float) -> Response:
        self._trouble.fire("418")
        until = int((self._now() + timedelta(seconds=left)).timestamp() * 1000)
        message = (
            f"Way too much request weight used; IP banned until {until}. "
            "Please use WebSocket Streams for live updates to avoid bans."
        )
        return _refusal(418, message, left)


def _refusal(status: int, message: str, left: float) -> Response:
    return JSONResponse({"code": -1003, "msg": message}, status, headers={"retry-after": str(math.ceil(left))})
