"""What the streaming run asks of the warehouse of either engine: LiveDuckDB and LiveBigQuery."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa


@dataclass
class Applied:
    """What has become of the bars of one batch so far.

    `visible_at` is when readers could see all of them with their indicators; `is_settled` whether they last, so that
    their messages may be acknowledged; `seconds` what both took, without waiting.
    """

    visible_at: datetime | None = None
    is_settled: bool = False
    seconds: float = 0.0


class LivePort(Protocol):
    """A warehouse as a streaming run writes it, from one thread."""

    def apply(self, rows: pa.Table) -> Applied:
        """Begin to make bars visible that have landed, KLINE_SCHEMA. Doing it again changes nothing. What is returned
        changes with the calls below."""
        ...

    def between_batches(self, *, nothing_waits: bool) -> None:
        """Go on; after the last batch, until all is settled. Raises what the work that has ended since raised."""
        ...

    def tidy(self) -> None:
        """What need not happen with each batch; called while nothing waits."""
        ...
