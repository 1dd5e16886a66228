"""The body of exchangeInfo: symbols with their status, assets and filters, in the form of 2026."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.requests import Request

from ingestion.simulator.listings import UNIT, Listing
from ingestion.simulator.parameters import Refused, checked_symbol, invalid, read_query, unknown_symbol

Entry = dict[str, Any]

_ORDER_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
_STATUSES = ("TRADING", "HALT", "BREAK")
_QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "JPY")


def selected(request: Request, symbols: Sequence[Entry]) -> list[Entry]:
    """The symbols that a request asks for; Refused when it names one that is not there, or asks twice."""
    names = ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus")
    values = read_query(request, (), names)
    if len(values.keys() & {"symbol", "symbols"}) + ("symbolStatus" in values or "permissions" in values) > 1:
        raise Refused(-1128, "Combination of optional parameters invalid.")
    chosen = list(symbols)
    if "symbol" in values or "symbols" in values:
        wanted = [values["symbol"]] if "symbol" in values else _list(values["symbols"], "symbols")
        by_name = {entry["symbol"]: entry for entry in symbols}
        if any(checked_symbol(name) not in by_name for name in wanted):
            raise unknown_symbol()
        chosen = [by_name[name] for name in dict.fromkeys(wanted)]
    if "symbolStatus" in values:
        if values["symbolStatus"] not in _STATUSES:
            raise Refused(-1122, "Invalid symbolStatus.")
        chosen = [entry for entry in chosen if entry["status"] == values["symbolStatus"]]
    if "permissions" in values:
        text = values["permissions"]
        permissions = set(_list(text, "permissions") if text.startswith("[") else [text])
        chosen = [entry for entry in chosen if permissions & _permissions(entry)]
    if _flag(values.get("showPermissionSets", "true")):
        return chosen
    return [entry | {"permissionSets": []} if "permissionSets" in entry else entry for entry in chosen]


def _list(text: str, name: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        raise invalid(name) from None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise invalid(name)
    return found


def _permissions(entry: Entry) -> set[str]:
    return {*entry["permissions"], *(name for one in entry.get("permissionSets", ()) for name in one)}


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise invalid("showPermissionSets")
    return text == "true"


def market_symbols(listings: Mapping[str, Listing], now: datetime) -> list[Entry]:
    """The listings as they are shown at `now`: nothing before its first minute, BREAK from its end on."""
    return [
        symbol_entry(symbol, "TRADING" if listing.end is None or now < listing.end else "BREAK", listing)
        for symbol, listing in listings.items()
        if listing.first <= now
    ]


def symbol_entry(symbol: str, status: str, listing: Listing | None = None) -> Entry:
    """One symbol; without a listing its tick and lot are the smallest there are."""
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote) and symbol != quote), "")
    modes = ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"]
    return {
        "symbol": symbol,
        "status": status,
        "baseAsset": symbol.removesuffix(quote),
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(_ORDER_TYPES),
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": _filters(listing.tick if listing else 1, listing.lot if listing else 1),
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": modes,
    }


def rate_limits(weight_limit: int) -> list[Entry]:
    return [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight_limit},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
        {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200_000},
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61_000},
    ]


def _filters(tick: int, lot: int) -> list[Entry]:
    tick_size, step_size = _decimal(tick), _decimal(lot)
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick_size, "maxPrice": "1000000.00000000", "tickSize": tick_size},
        {"filterType": "LOT_SIZE", "minQty": step_size, "maxQty": "9000000.00000000", "stepSize": step_size},
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": "100000.00000000",
            "stepSize": "0.00000000",
        },
        {"filterType": "TRAILING_DELTA", **dict.fromkeys(("minTrailingAboveDelta", "minTrailingBelowDelta"), 10)}
        | dict.fromkeys(("maxTrailingAboveDelta", "maxTrailingBelowDelta"), 2000),
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            **dict.fromkeys(("bidMultiplierUp", "askMultiplierUp"), "5"),
            **dict.fromkeys(("bidMultiplierDown", "askMultiplierDown"), "0.2"),
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


def _decimal(units: int) -> str:
    return f"{units // UNIT}.{units % UNIT:08d}"
