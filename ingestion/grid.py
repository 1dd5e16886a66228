"""Which bars a series lacks: its open times against the grid of its interval."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Window(NamedTuple):
    """Half-open: `[start, end)`."""

    start: datetime
    end: datetime


def holes(open_times: npt.NDArray[np.int64], window: Window, length: int) -> list[Window]:
    """The longest windows inside `window` in which bars of `length` microseconds are missing, in order.

    `open_times` are microseconds in ascending order. A bar that opens off the grid fills the place that it lies in.
    """
    start, end = micros(window.start), micros(window.end)
    first, last = -(-start // length), (end - 1) // length  # the places whose bars open in the window
    if last < first:
        return []
    places = open_times[(open_times >= start) & (open_times < end)] // length
    bounds = np.concatenate(([first - 1], places, [last + 1]))
    gaps = np.flatnonzero(np.diff(bounds) > 1)
    return [Window(instant(int(bounds[i] + 1) * length), instant(int(bounds[i + 1]) * length)) for i in gaps]


def without(windows: Iterable[Window], covered: Iterable[Window]) -> list[Window]:
    """What of `windows` no window of `covered` contains, in order."""
    left = sorted(windows)
    for cover in covered:
        left = [part for window in left for part in _cut(window, cover)]
    return left


def _cut(window: Window, cover: Window) -> list[Window]:
    parts = (
        Window(window.start, min(window.end, cover.start)),
        Window(max(window.start, cover.end), window.end),
    )
    if cover.end <= window.start or window.end <= cover.start:
        return [window]
    return [part for part in parts if part.start < part.end]


def micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def instant(since_epoch: int) -> datetime:
    """The UTC instant of microseconds since 1970."""
    return _EPOCH + since_epoch * _MICROSECOND
