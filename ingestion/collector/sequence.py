"""The order of one series: which bar is next, which is known already, and what must be fetched first.

`next_open` is the watermark: every bar that opens before it is settled, that is accepted, or known not to exist.
"""

from collections.abc import Sequence as Sequenced
from dataclasses import dataclass

from ingestion.grid import instant, micros
from ingestion.klines import INTERVAL_MICROS, Month, Series, grid_micros
from ingestion.messages import KlineMessage

# Bars held back while earlier ones are fetched: what comes beyond is fetched too.
_MOST_HELD = 64
# Bars published although earlier ones are missing: two weeks at 5m.
_MOST_AHEAD = 4096


def following(series: Series, open_time: int) -> int:
    """When the bar after the one at `open_time` opens, in microseconds."""
    grid, length = grid_micros(series.interval), INTERVAL_MICROS[series.interval]
    if grid:
        return (open_time // grid + 1) * grid
    if length:
        return open_time + length
    return micros(Month.containing(instant(open_time).date()).end)


@dataclass(frozen=True)
class Fetched:
    """Closed bars of a series by REST, in order: all that the exchange had in `[start, end)` when its clock said `now`.

    Times in microseconds.
    """

    series: Series
    start: int
    end: int
    bars: Sequenced[KlineMessage]
    now: int


class Sequence:
    """Bars of one series, put in order. Not safe to share between threads."""

    def __init__(self, series: Series, next_open: int | None) -> None:
        self.series, self.next_open = series, next_open
        self._held: dict[int, KlineMessage] = {}
        self._ahead: set[int] = set()

    @property
    def has_gap(self) -> bool:
        """Whether bars that are known wait for, or went before, others that are not."""
        return bool(self._held or self._ahead)

    @property
    def is_holding(self) -> bool:
        return bool(self._held)

    def knows(self, open_time: int) -> bool:
        """Whether this bar would be a duplicate."""
        is_settled = self.next_open is not None and open_time < self.next_open
        return is_settled or open_time in self._held or open_time in self._ahead

    def closed(self, bar: KlineMessage) -> list[KlineMessage]:
        """Take a bar that closed, and was not known; returns the bars to publish now, in order."""
        if self.next_open is None:
            self.next_open = bar.open_time
        if bar.open_time <= self.next_open:
            return [*self._accept(bar), *self._accept_held()]
        self._hold(bar)
        return self.release() if self._ahead else []

    def fetched(self, answer: Fetched) -> list[KlineMessage]:
        """Take what REST had; returns the bars to publish now, in order."""
        # An empty answer only says which bar is open: the stream may have told of an earlier one meanwhile.
        if self.next_open is None or answer.start < answer.end:
            self.next_open = max(self.next_open or 0, answer.start)
        accepted = [one for bar in answer.bars if bar.open_time >= self.next_open for one in self._accept(bar)]
        self._pass_over(answer.end)
        return [*accepted, *self._accept_held()]

    def release(self) -> list[KlineMessage]:
        """The bars that are held back, to be published although earlier ones are missing: those are still wanted."""
        keys = sorted(self._held)[: max(_MOST_AHEAD - len(self._ahead), 0)]
        self._ahead.update(keys)
        return [self._held.pop(key) for key in keys]

    def is_overdue(self, now: int) -> bool:
        """Whether the next bar has closed when the exchange's clock says `now`."""
        return self.next_open is not None and following(self.series, self.next_open) <= now

    def _accept(self, bar: KlineMessage) -> list[KlineMessage]:
        is_new = bar.open_time not in self._ahead
        self._held.pop(bar.open_time, None)
        self._advance(following(self.series, bar.open_time))
        return [bar] if is_new else []

    def _accept_held(self) -> list[KlineMessage]:
        accepted: list[KlineMessage] = []
        while self._held and (first := min(self._held)) <= (self.next_open or 0):
            accepted += self._accept(self._held[first])
        return accepted

    def _advance(self, next_open: int) -> None:
        while next_open in self._ahead:
            next_open = following(self.series, next_open)
        self.next_open = next_open
        self._ahead = {key for key in self._ahead if key > next_open} if self._ahead else self._ahead

    def _pass_over(self, end: int) -> None:
        """Pass over a hole that the exchange has: only once a later bar is known, since an answer may be a bit old."""
        later = min((*self._held, *self._ahead), default=None)
        if later is not None and (self.next_open or 0) < later <= end:
            self._advance(later)

    def _hold(self, bar: KlineMessage) -> None:
        self._held[bar.open_time] = bar
        if len(self._held) > _MOST_HELD:  # the newest goes: it will be fetched after those before it
            del self._held[max(self._held)]
