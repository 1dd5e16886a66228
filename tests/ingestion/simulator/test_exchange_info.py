import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from support.exchanges import NOW, Exchange, millis

from ingestion.simulator.faults import Faults

PATH = "/api/v3/exchangeInfo"
LISTED = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "MATICUSDT", "POLUSDT"]


def names(exchange: Exchange, **parameters: str) -> list[str]:
    response = exchange.get(PATH, params=parameters)
    assert response.status_code == 200, response.text
    return [entry["symbol"] for entry in response.json()["symbols"]]


def test_the_body_has_the_parts_of_the_real_one(plain: Exchange) -> None:
    body = plain.get(PATH).json()
    assert list(body) == ["timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"]
    assert (body["timezone"], body["serverTime"]) == ("UTC", millis(NOW))


@pytest.mark.parametrize("limit", [6000, 70])
def test_it_tells_the_limit_that_holds(exchange: Any, limit: int) -> None:
    [weight] = [
        one
        for one in exchange(faults=Faults(weight_limit=limit)).get(PATH).json()["rateLimits"]
        if one["rateLimitType"] == "REQUEST_WEIGHT"
    ]
    assert weight == {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit}


def test_living_symbols_trade_and_ended_ones_are_broken_off(plain: Exchange) -> None:
    statuses = {entry["symbol"]: entry["status"] for entry in plain.get(PATH).json()["symbols"]}
    assert statuses == dict.fromkeys(LISTED, "TRADING") | {"MATICUSDT": "BREAK"}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2020-08-11T05:59Z", ["BTCUSDT", "ETHUSDT", "MATICUSDT"]),
        ("2024-09-10T02:59Z", ["BTCUSDT", "ETHUSDT", "SOLUSDT", "MATICUSDT"]),
        ("2024-09-10T03:00Z", ["BTCUSDT", "ETHUSDT", "SOLUSDT"]),
        ("2024-09-13T10:00Z", ["BTCUSDT", "ETHUSDT", "SOLUSDT", "POLUSDT"]),
    ],
)
def test_what_trades_depends_on_the_clock(exchange: Any, now: str, expected: list[str]) -> None:
    assert names(exchange(now=datetime.fromisoformat(now)), symbolStatus="TRADING") == expected


@pytest.mark.parametrize("symbol", LISTED)
def test_prices_and_volumes_keep_to_the_filters(plain: Exchange, symbol: str) -> None:
    [entry] = plain.get(PATH, params={"symbol": symbol}).json()["symbols"]
    filters = {one["filterType"]: one for one in entry["filters"]}
    tick, step = Decimal(filters["PRICE_FILTER"]["tickSize"]), Decimal(filters["LOT_SIZE"]["stepSize"])
    rows = plain.klines(symbol, "1m", limit=1000)
    assert not any(Decimal(price) % tick for row in rows for price in row[1:5])
    assert not any(Decimal(row[place]) % step for row in rows for place in (5, 9))
    assert any(Decimal(row[4]) % (tick * 10) for row in rows)


def test_a_symbol_has_the_fields_of_the_real_one(plain: Exchange) -> None:
    [entry] = plain.get(PATH, params={"symbol": "BTCUSDT"}).json()["symbols"]
    assert (entry["baseAsset"], entry["quoteAsset"]) == ("BTC", "USDT")
    assert (entry["permissions"], entry["permissionSets"]) == ([], [["SPOT", "MARGIN"]])
    assert entry["isSpotTradingAllowed"] is True
    expected = {"quotePrecision", "quoteAssetPrecision", "orderTypes", "icebergAllowed", "otoAllowed", "filters"}
    assert expected <= entry.keys()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, LISTED),
        ({"symbol": "ETHUSDT"}, ["ETHUSDT"]),
        ({"symbols": '["SOLUSDT","BTCUSDT"]'}, ["SOLUSDT", "BTCUSDT"]),
        ({"symbolStatus": "BREAK"}, ["MATICUSDT"]),
        ({"symbolStatus": "HALT"}, []),
        ({"permissions": "SPOT"}, LISTED),
        ({"permissions": '["LEVERAGED"]'}, []),
    ],
    ids=str,
)
def test_symbols_are_chosen_by_name_status_and_permission(
    plain: Exchange, parameters: dict[str, str], expected: list[str]
) -> None:
    assert names(plain, **parameters) == expected


def test_permission_sets_are_left_out_on_demand(plain: Exchange) -> None:
    body = plain.get(PATH, params={"showPermissionSets": "false"}).json()
    assert [entry["permissionSets"] for entry in body["symbols"]] == [[]] * len(LISTED)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("symbol=DOGEUSDT", -1121),
        (f"symbols={json.dumps(['BTCUSDT', 'DOGEUSDT'])}", -1121),
        ("symbol=btcusdt", -1100),
        ("symbols=BTCUSDT", -1130),
        ("symbols=[]", -1130),
        ("symbols=[1]", -1130),
        ("symbol=", -1105),
        ("symbol=BTCUSDT&symbol=BTCUSDT", -1101),
        ("interval=1h", -1104),
        ("symbolStatus=AWAKE", -1122),
        ("symbol=BTCUSDT&symbolStatus=TRADING", -1128),
        ("symbol=BTCUSDT&symbols=[]", -1128),
        ("showPermissionSets=perhaps", -1130),
    ],
)
def test_a_bad_question_is_refused(plain: Exchange, query: str, code: int) -> None:
    assert plain.error(query, PATH)[:2] == (400, code)
