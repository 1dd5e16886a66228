"""The message of one closed kline, as it travels over the bus: JSON with the exchange's own decimal strings.

    {"schema": 1, "symbol": "BTCUSDT", "interval": "5m", "open_time": 1735689300000000, "close_time": 1735689599999999,
     "open": "93576.00000000", ..., "trades": 7448, "source": "stream",
     "event_time": 1735689600004000, "received_time": 1735689600010123}

Times are microseconds since 1970. `event_time` is when the exchange sent it, `received_time` when the collector had it;
`source` is `stream`, or `rest` for a bar that was fetched after an interruption.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ingestion.bus.port import Message
from ingestion.errors import KlinehouseError, UsageError
from ingestion.klines import DECIMAL_COLUMNS, Series
from ingestion.provenance import REST, STREAM

SCHEMA_VERSION = 1
# Far above any message of a kline (450 bytes); what is larger is none.
MAX_BYTES = 8192

# 20 digits before the point and 8 after it are what decimal(28, 8) holds.
_DECIMAL = re.compile(r"-?\d{1,20}(?:\.\d{1,8})?", re.ASCII)
_INSTANTS = ("open_time", "close_time", "event_time", "received_time")
# 2000 to 2100: anything else is another unit, or no time.
_EARLIEST, _LATEST = 946_684_800_000_000, 4_102_444_800_000_000


class NoKline(KlinehouseError):
    """A message is no kline; the reason says which part of it."""

    kind = "no_kline"


@dataclass(frozen=True)
class KlineMessage:
    """One closed bar. Prices and volumes are decimal strings, times microseconds since 1970."""

    symbol: str
    interval: str
    open_time: int
    close_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    taker_buy_base_volume: str
    taker_buy_quote_volume: str
    source: str
    event_time: int
    received_time: int

    @property
    def series(self) -> Series:
        return Series(self.symbol, self.interval)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.symbol, self.interval, self.open_time


_NAMES = tuple(KlineMessage.__dataclass_fields__)


def encode(kline: KlineMessage) -> Message:
    data = json.dumps({"schema": SCHEMA_VERSION, **asdict(kline)}, separators=(",", ":")).encode()
    return Message(
        data, {"symbol": kline.symbol, "interval": kline.interval, "schema": str(SCHEMA_VERSION), "kind": "kline"}
    )


def decode(message: Message) -> KlineMessage:
    """Raises NoKline for whatever is not exactly a message of this schema."""
    if len(message.data) > MAX_BYTES:
        raise _refused(f"it has {len(message.data)} bytes, a kline at most {MAX_BYTES}")
    try:
        fields = json.loads(message.data)
    except (ValueError, RecursionError) as error:
        raise _refused(f"it is no JSON ({error})") from error
    if not isinstance(fields, dict):
        raise _refused(f"it is a {type(fields).__name__}, not an object")
    if fields.get("schema") != SCHEMA_VERSION or isinstance(fields["schema"], bool):
        raise _refused(f"its schema is {fields.get('schema')!r}, this reads {SCHEMA_VERSION}")
    names = fields.keys() - {"schema"}
    if names != set(_NAMES):
        missing, unknown = sorted(set(_NAMES) - names), sorted(names - set(_NAMES))
        raise _refused(f"fields are missing ({', '.join(missing)}) or unknown ({', '.join(map(repr, unknown))[:200]})")
    _check(fields)
    return KlineMessage(**{name: fields[name] for name in _NAMES})


def _check(fields: Mapping[str, Any]) -> None:
    for name in DECIMAL_COLUMNS:
        if not isinstance(fields[name], str) or not _DECIMAL.fullmatch(fields[name]):
            raise _refused(f"{name} is {_shown(fields[name])}, not a decimal string of the exchange")
    for name in (*_INSTANTS, "trades"):
        if type(fields[name]) is not int:
            raise _refused(f"{name} is {_shown(fields[name])}, not an integer")
    for name in _INSTANTS:
        if not _EARLIEST <= fields[name] < _LATEST:
            raise _refused(f"{name} is {fields[name]}, which are no microseconds since 1970")
    if not 0 <= fields["trades"] < 2**63:
        raise _refused(f"trades is {_shown(fields['trades'])}")
    if fields["source"] not in (STREAM, REST):
        raise _refused(f"source is {_shown(fields['source'])}, neither {STREAM} nor {REST}")
    try:
        Series(fields["symbol"], fields["interval"])
    except (UsageError, TypeError) as error:
        raise _refused(f"it is of no series ({_shown(fields['symbol'])}, {_shown(fields['interval'])})") from error


def _shown(value: object) -> str:
    return repr(value)[:80]


def _refused(reason: str) -> NoKline:
    return NoKline(f"The message is no kline: {reason}.", "`klinehouse dlq show` has it; correct it and replay it.")
