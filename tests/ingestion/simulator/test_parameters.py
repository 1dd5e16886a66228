import pytest
from support.exchanges import Exchange

GOOD = "symbol=BTCUSDT&interval=1h"
SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
NUMBER_RANGE = "^[0-9]{1,20}$"


def mandatory(name: str) -> str:
    return f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."


def illegal(name: str, legal: str) -> str:
    return f"Illegal characters found in parameter '{name}'; legal range is '{legal}'."


def invalid(name: str) -> str:
    return f"Data sent for parameter '{name}' is not valid."


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("symbol=DOGEUSDT&interval=1h", -1121, "Invalid symbol."),
        ("symbol=btcusdt&interval=1h", -1100, illegal("symbol", SYMBOL_RANGE)),
        ("symbol=BTC/USDT&interval=1h", -1100, illegal("symbol", SYMBOL_RANGE)),
        (f"symbol={'A' * 51}&interval=1h", -1100, illegal("symbol", SYMBOL_RANGE)),
        ("symbol=BTCUSDT&interval=7m", -1120, "Invalid interval."),
        ("symbol=BTCUSDT&interval=1H", -1120, "Invalid interval."),
        ("symbol=BTCUSDT&interval=1s", -1120, "Invalid interval."),
        ("interval=1h", -1102, mandatory("symbol")),
        ("symbol=BTCUSDT", -1102, mandatory("interval")),
        ("", -1102, mandatory("symbol")),
        ("symbol=&interval=1h", -1105, "Parameter 'symbol' was empty."),
        (f"{GOOD}&limit=", -1105, "Parameter 'limit' was empty."),
        (f"{GOOD}&symbol=ETHUSDT", -1101, "Duplicate values for a parameter detected."),
        (f"{GOOD}&limit=5&limit=5", -1101, "Duplicate values for a parameter detected."),
        (f"{GOOD}&from=1", -1104, "Not all sent parameters were read; read '2' parameter(s) but was sent '3'."),
        (f"{GOOD}&limit=ten", -1100, illegal("limit", NUMBER_RANGE)),
        (f"{GOOD}&limit=-1", -1100, illegal("limit", NUMBER_RANGE)),
        (f"{GOOD}&startTime=2024-07-09", -1100, illegal("startTime", NUMBER_RANGE)),
        (f"{GOOD}&endTime=1.5", -1100, illegal("endTime", NUMBER_RANGE)),
        (f"{GOOD}&limit=0", -1130, invalid("limit")),
        (f"{GOOD}&startTime={2**63}", -1130, invalid("startTime")),
        (f"{GOOD}&timeZone=Europe/Berlin", -1130, invalid("timeZone")),
        (f"{GOOD}&timeZone=15", -1130, invalid("timeZone")),
        (f"{GOOD}&timeZone=-12:01", -1130, invalid("timeZone")),
        (f"{GOOD}&timeZone=05:45", -1130, invalid("timeZone")),
        ("symbol=BTCUSDT&interval=1d&timeZone=8", -1130, invalid("timeZone")),
        ("symbol=BTCUSDT&interval=1M&timeZone=1", -1130, invalid("timeZone")),
    ],
)
def test_a_bad_query_is_refused_with_its_code(plain: Exchange, query: str, code: int, message: str) -> None:
    assert plain.error(query) == (400, code, message)


@pytest.mark.parametrize("zone", ["0", "00:00", "8", "-1:00", "%2B05:00", "14", "-12"])
def test_a_zone_in_which_the_bars_are_the_same_is_served(plain: Exchange, zone: str) -> None:
    assert plain.klines(limit=3) == plain.get(f"/api/v3/klines?{GOOD}&limit=3&timeZone={zone}").json()


def test_parameters_come_in_any_order(plain: Exchange) -> None:
    assert plain.get("/api/v3/klines?limit=2&interval=1h&symbol=BTCUSDT").json() == plain.klines(limit=2)


@pytest.mark.parametrize("path", ["/api/v3/time", "/api/v3/ping"])
def test_time_and_ping_take_no_parameters(plain: Exchange, path: str) -> None:
    message = "Not all sent parameters were read; read '0' parameter(s) but was sent '1'."
    assert plain.error("symbol=BTCUSDT", path) == (400, -1104, message)


def test_an_unknown_unit_of_time_is_refused(plain: Exchange) -> None:
    refused = plain.error(GOOD, **{"X-MBX-TIME-UNIT": "SECOND"})
    assert refused == (400, -1130, invalid("X-MBX-TIME-UNIT"))
