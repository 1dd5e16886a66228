"""Frames that are no kline, as a faulty exchange or proxy would send them."""

from ingestion.klines import Series
from ingestion.simulator.frames import stream_name


def garbage(series: Series, which: int) -> str | bytes:
    """One of a few, by number: text that is no JSON or not of a kline's types, or bytes."""
    symbol, interval = series.symbol, series.interval
    kinds: list[str | bytes] = [
        f'{{"e":"kline","E":1735689600004,"s":"{symbol}","k":{{"t":17356893',
        f'{{"stream":"{stream_name(series)}","data":{{"e":"kline","s":"{symbol}","k":{{"t":"soon","x":"true"}}}}}}',
        f'{{"e":"kline","E":null,"s":"{symbol}","k":{{"t":1e400,"T":[],"s":7,"i":"{interval}","o":0.1,"x":true}}}}',
        f'{{"e":"kline","E":1735689600004,"s":"{symbol}","k":null}}',
        "null",
        '["kline"]',
        "<html><body><h2>502 Bad Gateway</h2></body></html>",
        b"\x00\xff\xfe\x80 no text at all",
    ]
    return kinds[which % len(kinds)]
