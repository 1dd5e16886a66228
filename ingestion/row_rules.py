"""The rules that one row of klines must keep to be believed, checked column by column.

A bar that opens off the grid of its interval is kept (the exchange has made such bars), and so is one whose close time
was cut short by a halt; both are facts. A row that contradicts itself is not.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.klines import DECIMAL_COLUMNS

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# Pairs of columns of which the first is never more than the second.
_ORDERED = (
    *(("low", "open"), ("low", "close"), ("open", "high"), ("close", "high")),
    *(("taker_buy_base_volume", "volume"), ("taker_buy_quote_volume", "quote_volume")),
)


@dataclass(frozen=True)
class BrokenRows:
    """Rows that break a rule, and the first rule that each breaks."""

    rows: pa.Table
    reasons: tuple[str, ...]

    @property
    def summary(self) -> str:
        """How many rows break which rules, such as `3 rows break low <= open`."""
        counted = Counter(self.reasons)
        return "; ".join(
            f"{count} row{'s' * (count > 1)} break{'s' * (count == 1)} {rule}" for rule, count in counted.items()
        )


def split_broken(table: pa.Table) -> tuple[pa.Table, BrokenRows]:
    """The rows that keep all rules, in their order, and those that do not. `table` is in the schema of the raw zone."""
    if _plainly_good(table):
        return table, BrokenRows(table.slice(0, 0), ())
    broken = np.zeros(table.num_rows, bool)
    verdicts: list[tuple[str, Mask]] = []
    for rule, holds in _rules(table):
        if not holds.all():
            verdicts.append((rule, ~holds))
            broken |= ~holds
    if not verdicts:
        return table, BrokenRows(table.slice(0, 0), ())
    reasons = tuple(next(rule for rule, breaks in verdicts if breaks[row]) for row in np.flatnonzero(broken))
    return _where(table, ~broken), BrokenRows(_where(table, broken), reasons)


def _rules(table: pa.Table) -> list[tuple[str, Mask]]:
    opened, closed, trades = (integers(table[name]) for name in ("open_time", "close_time", "trades"))
    amounts = {name: _signs(table[name]) for name in DECIMAL_COLUMNS}
    return [
        ("open_time < close_time", opened < closed),
        ("low > 0", amounts["low"] > 0),
        *((f"{name} >= 0", amounts[name] >= 0) for name in DECIMAL_COLUMNS[4:]),
        ("trades >= 0", trades >= 0),
        *((f"{left} <= {right}", _bools(pc.less_equal(table[left], table[right]))) for left, right in _ORDERED),
    ]


def integers(column: pa.ChunkedArray) -> Ints:
    """A column of 64-bit integers or instants without nulls as numbers, not copied when it is in one piece.

    (pyarrow's own to_numpy imports pandas, which takes half a second.)
    """
    return _int64s(column, 1)


def _int64s(column: pa.ChunkedArray, words: int) -> Ints:
    """The 64-bit words of a column of fixed width, `words` of them per value."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset * words : (chunk.offset + len(chunk)) * words]
        for chunk in column.chunks
        if len(chunk)
    ]
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty(0, np.int64)


def decimal_words(column: pa.ChunkedArray) -> tuple[Ints, Ints]:
    """The lower and the upper 64-bit word of each decimal; the sign is in the upper one."""
    words = _int64s(column, 2).reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _signs(column: pa.ChunkedArray) -> Ints:
    """-1, 0 or 1 for each decimal."""
    lower, upper = decimal_words(column)
    return np.where(upper < 0, -1, ((lower != 0) | (upper != 0)).astype(np.int64))


def _plainly_good(table: pa.Table) -> bool:
    """Whether all rows keep all rules, found on the lower words alone (a fifth of the time of comparing decimals).

    That is all there is to values from 0 to 92 billion, which nearly all are; False says nothing.
    """
    units = {}
    for name in DECIMAL_COLUMNS:
        lower, upper = decimal_words(table[name])
        if upper.any() or (lower < 0).any():
            return False
        units[name] = lower
    opened, closed, trades = (integers(table[name]) for name in ("open_time", "close_time", "trades"))
    at_most = [(units[left], units[right]) for left, right in _ORDERED]
    return bool((opened < closed).all() and (trades >= 0).all() and units["low"].all()) and all(
        bool((left <= right).all()) for left, right in at_most
    )


def _bools(column: pa.ChunkedArray) -> Mask:
    """A column of booleans, of which Arrow keeps eight in a byte."""
    pieces = []
    for chunk in column.chunks:
        if not len(chunk):
            continue
        bits = np.unpackbits(np.frombuffer(chunk.buffers()[1], np.uint8), bitorder="little")
        pieces.append(bits[chunk.offset : chunk.offset + len(chunk)].astype(bool))
    return np.concatenate(pieces) if pieces else np.empty(0, bool)


def _where(table: pa.Table, mask: Mask) -> pa.Table:
    return table.take(index_array(np.flatnonzero(mask)))


def index_array(positions: Ints) -> pa.Array:
    """Positions as Arrow wants them (made from the buffer: pa.array imports pandas)."""
    return pa.Array.from_buffers(pa.int64(), len(positions), [None, pa.py_buffer(np.ascontiguousarray(positions))])
