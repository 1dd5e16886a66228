"""Faults as they happen: who is struck, how often, and the books that tests read afterwards. Safe between threads."""

import threading
import zlib
from collections import Counter
from typing import Any

import numpy as np

from ingestion.klines import Series
from ingestion.simulator.faults import Faults
from ingestion.simulator.listings import Listing
from ingestion.simulator.market import Bars, Ints

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Trouble:
    """The faults of one exchange, and what came of them."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._seed = seed
        self._lock = threading.Lock()
        self._fired: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()
        self._differences: dict[tuple[str, str, int], dict[str, Any]] = {}

    def count_request(self, kind: str) -> None:
        with self._lock:
            self._requests[kind] += 1

    def fire(self, fault: str) -> None:
        with self._lock:
            self._fired[fault] += 1

    def attempt(self, address: str) -> int:
        """How often `address` has been tried, with this time."""
        with self._lock:
            self._attempts[address] += 1
            return self._attempts[address]

    def attempts(self, address: str) -> int:
        """How often `address` has been tried so far."""
        with self._lock:
            return self._attempts[address]

    def fails(self, address: str) -> bool:
        """Whether this attempt at `address` is one of the `errors`."""
        share = self.faults.errors
        hit = share > 0 and self.lot("errors", f"{address}#{self.attempt(address)}") < share
        if hit:
            self.fire("errors")
        return hit

    def strikes(self, fault: str, name: str) -> bool:
        """Whether `fault` is meant for `name`: a file, a bar or an attempt."""
        chosen = getattr(self.faults, fault)
        return name in chosen if isinstance(chosen, tuple) else chosen > 0 and self.lot(fault, name) < chosen

    def meets(self, fault: str, name: str) -> bool:
        """Whether `fault` is meant for `name`; it fires when it is."""
        meant = self.strikes(fault, name)
        if meant:
            self.fire(fault)
        return meant

    def is_ill(self, fault: str, name: str, fetches: int) -> bool:
        """Whether the file `name` has `fault` when it is fetched for the n-th time."""
        heal_after = self.faults.heal_after
        return self.strikes(fault, name) and (not heal_after or fetches <= heal_after)

    def differing(self, series: Series, listing: Listing, bars: Bars) -> Bars:
        """What the archive has of these bars: some with an eighth of the trading missing and another close."""
        share = self.faults.archive_differs
        lots = bars.volume // listing.lot
        chosen = (self._lots(str(series), bars.open_time) < share) & (lots >= 8) & (bars.trades >= 8)
        if not share or not chosen.any():
            return bars
        taker_lots = bars.taker_buy_base_volume // listing.lot
        gone, taker_gone = np.where(chosen, lots // 8, 0), np.where(chosen, -(-taker_lots // 8), 0)
        step = np.where(bars.close < bars.high, listing.tick, np.where(bars.close > bars.low, -listing.tick, 0))
        changed = Bars(
            **vars(bars)
            | {
                "close": bars.close + np.where(chosen, step, 0),
                "volume": bars.volume - gone * listing.lot,
                "quote_volume": bars.quote_volume - bars.quote_volume // np.maximum(lots, 1) * gone,
                "trades": bars.trades - np.where(chosen, bars.trades // 8, 0),
                "taker_buy_base_volume": bars.taker_buy_base_volume - taker_gone * listing.lot,
                "taker_buy_quote_volume": bars.taker_buy_quote_volume
                - bars.taker_buy_quote_volume // np.maximum(taker_lots, 1) * taker_gone,
            }
        )
        self._note(series, bars.where(chosen), changed.where(chosen))
        return changed

    def _note(self, series: Series, true: Bars, archived: Bars) -> None:
        names = ("close", "volume", "trades")
        with self._lock:
            for i, open_time in enumerate(true.open_time.tolist()):
                entry: dict[str, Any] = {"symbol": series.symbol, "interval": series.interval, "open_time": open_time}
                for name in names:
                    entry[name] = {"rest": int(getattr(true, name)[i]), "archive": int(getattr(archived, name)[i])}
                self._differences[series.symbol, series.interval, open_time] = entry

    def fired(self) -> dict[str, Any]:
        """How often each fault fired, and the bars planted so far: times in microseconds, amounts in units of 10^-8."""
        with self._lock:
            planted = [self._differences[key] for key in sorted(self._differences)]
            return {"fired": dict(self._fired) | {"archive_differs": len(planted)}, "differences": planted}

    def requests(self) -> dict[str, int]:
        with self._lock:
            return dict(self._requests)

    def lot(self, fault: str, name: str) -> float:
        """A number from 0 to 1, always the same for the same seed, fault and name."""
        return float(self._lots(fault, np.array([zlib.crc32(name.encode())]))[0])

    def _lots(self, scope: str, values: Ints) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A number from 0 to 1 for each value (the finalizer of splitmix64)."""
        start = zlib.crc32(f"{self._seed} {scope}".encode()) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
        mixed = values.astype(np.uint64) + np.uint64(start)
        for shift, factor in zip((30, 27), _MIX, strict=True):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
        mixed ^= mixed >> np.uint64(31)
        return np.asarray(mixed >> np.uint64(11), np.float64) / 2.0**53
