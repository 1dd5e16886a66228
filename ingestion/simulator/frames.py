"""Frames of the stream as bytes: klines in both framings and both units of time, and the text of a bar's values."""

import json
from dataclasses import dataclass, field
from typing import Any

from websockets.frames import Frame, Opcode

from ingestion.klines import Series
from ingestion.simulator.listings import UNIT
from ingestion.simulator.tape import Kline


def stream_name(series: Series) -> str:
    return f"{series.symbol.lower()}@kline_{series.interval}"


def decimal(units: int) -> str:
    """Units of 10^-8 with eight digits."""
    return f"{units // UNIT}.{units % UNIT:08d}"


def values(kline: Kline) -> list[str]:
    """The eleven values of a bar as text, in the order of the archive; times in microseconds."""
    return [
        str(kline.open_time),
        *(decimal(price) for price in (kline.open, kline.high, kline.low, kline.close, kline.volume)),
        str(kline.close_time),
        decimal(kline.quote_volume),
        str(kline.trades),
        decimal(kline.taker_buy_base_volume),
        decimal(kline.taker_buy_quote_volume),
    ]


@dataclass
class KlineFrame:
    """One event of a kline stream, made into bytes once for all connections that want the same form of it."""

    series: Series
    kline: Kline
    event_time: int
    closed: bool
    _made: dict[tuple[bool, bool], bytes] = field(default_factory=dict)

    def bytes_for(self, *, combined: bool, micro: bool) -> bytes:
        """A whole WebSocket frame."""
        made = self._made.get((combined, micro))
        if made is None:
            payload = self._payload(1 if micro else 1000)
            made = text_frame(enveloped(stream_name(self.series), payload) if combined else payload)
            self._made[combined, micro] = made
        return made

    def _payload(self, unit: int) -> str:
        """The event in the order in which the exchange writes it."""
        kline, symbol = self.kline, self.series.symbol
        return (
            f'{{"e":"kline","E":{self.event_time // unit},"s":"{symbol}","k":{{"t":{kline.open_time // unit},'
            f'"T":{kline.close_time // unit},"s":"{symbol}","i":"{self.series.interval}","f":{kline.first_trade},'
            f'"L":{kline.last_trade},"o":"{decimal(kline.open)}","c":"{decimal(kline.close)}",'
            f'"h":"{decimal(kline.high)}","l":"{decimal(kline.low)}","v":"{decimal(kline.volume)}",'
            f'"n":{kline.trades},"x":{"true" if self.closed else "false"},"q":"{decimal(kline.quote_volume)}",'
            f'"V":"{decimal(kline.taker_buy_base_volume)}","Q":"{decimal(kline.taker_buy_quote_volume)}","B":"0"}}}}'
        )


def enveloped(stream: str, payload: str) -> str:
    """The combined form of a payload."""
    return f'{{"stream":{compact(stream)},"data":{payload}}}'


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def text_frame(text: str) -> bytes:
    return Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def binary_frame(content: bytes) -> bytes:
    return Frame(Opcode.BINARY, content).serialize(mask=False)
