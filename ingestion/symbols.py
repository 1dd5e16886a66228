"""What the exchange trades: its `exchangeInfo` as rows, kept each time that it changed."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from ingestion.binance.exchange import Exchange
from ingestion.binance.rest import MalformedAnswer
from ingestion.klines import INSTANT, PRICE
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import Settings

SYMBOL_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("base_asset", pa.string(), nullable=False),
        pa.field("quote_asset", pa.string(), nullable=False),
        pa.field("tick_size", PRICE),
        pa.field("lot_size", PRICE),
        pa.field("min_notional", PRICE),
        pa.field("fetched_at", INSTANT, nullable=False),
    ]
)


def land_symbols(settings: Settings) -> pa.Table:
    """Ask the exchange what it trades and keep the answer if it is news; returns it, in SYMBOL_SCHEMA.

    Raises ExchangeRefused when REST refuses or answers something else.
    """
    zone = RawZone(settings.raw_root)
    with Exchange(settings) as exchange:
        rows = parse_exchange_info(exchange.rest.exchange_info()["symbols"], datetime.now(UTC))
        zone.claim(Environment.of(exchange.rest.simulation))
    known = zone.latest_symbols()
    if known is None or not _same(known, rows):
        zone.write_symbols(rows)
    return rows


def parse_exchange_info(symbols: Iterable[Mapping[str, Any]], fetched_at: datetime) -> pa.Table:
    """The `symbols` of an exchangeInfo answer, old or new form, ordered by symbol.

    A symbol that the exchange has ended stays listed with status BREAK. Raises MalformedAnswer.
    """
    rows = []
    for entry in symbols:
        try:
            filters = {one["filterType"]: one for one in entry["filters"]}
            rows.append(
                {
                    "symbol": _text(entry, "symbol"),
                    "status": _text(entry, "status"),
                    "base_asset": _text(entry, "baseAsset"),
                    "quote_asset": _text(entry, "quoteAsset"),
                    "tick_size": _decimal(filters, "PRICE_FILTER", "tickSize"),
                    "lot_size": _decimal(filters, "LOT_SIZE", "stepSize"),
                    # Called MIN_NOTIONAL before 2023.
                    "min_notional": _decimal(filters, "NOTIONAL", "minNotional")
                    or _decimal(filters, "MIN_NOTIONAL", "minNotional"),
                    "fetched_at": fetched_at,
                }
            )
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            raise MalformedAnswer(
                f"exchangeInfo describes a symbol without its {error}: {str(entry)[:200]}.",
                "Check KLINEHOUSE_REST_URL; if it is the exchange's own host, its API has changed.",
            ) from error
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["symbol"])), schema=SYMBOL_SCHEMA)


def _text(entry: Mapping[str, Any], name: str) -> str:
    if not isinstance(entry[name], str):
        raise TypeError(name)
    return str(entry[name])


def _decimal(filters: Mapping[str, Mapping[str, Any]], name: str, value: str) -> Decimal | None:
    """A size as the raw zone holds it; ValueError when it does not fit."""
    if name not in filters:
        return None
    text = filters[name][value]
    if not isinstance(text, str):
        raise TypeError(value)
    size = Decimal(text)
    if not size.is_finite() or not 0 <= size < 10**20 or size != round(size, 8):
        raise ValueError(value)
    return size


def _same(known: pa.Table, rows: pa.Table) -> bool:
    return bool(known.drop_columns("fetched_at").equals(rows.drop_columns("fetched_at")))
