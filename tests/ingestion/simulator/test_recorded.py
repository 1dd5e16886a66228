import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import Exchange, comparable, instant, millis, path_of

from ingestion.errors import UsageError
from ingestion.simulator.recorded import folder_files
from ingestion.simulator.server import build_app

HOUR = 3_600_000
START = millis(datetime(2023, 1, 1, tzinfo=UTC))


def bar(open_time: int) -> list[Any]:
    price = f"{open_time % 97}.50000000"
    return [open_time, price, price, price, price, "1.00000000", open_time + HOUR - 1, price, 3, "0.5", price, "0"]


def write(folder: Path, name: str, body: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(body).encode()))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten hours of one symbol in two files, the later one first by name."""
    write(tmp_path, "rest/XRPUSDT/1h/a.json.gz", [bar(START + hour * HOUR) for hour in range(6, 10)])
    write(tmp_path, "rest/XRPUSDT/1h/b.json.gz", [bar(START + hour * HOUR) for hour in range(6)])
    return tmp_path


@pytest.fixture
def served(recording: Path) -> Exchange:
    return Exchange(build_app(data=recording))


# --- klines ----------------------------------------------------------------------------------------------------


def hours(served: Exchange, **parameters: int) -> list[int]:
    return [(row[0] - START) // HOUR for row in served.klines("XRPUSDT", "1h", **parameters)]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, list(range(10))),
        ({"limit": 3}, [7, 8, 9]),
        ({"startTime": START + HOUR, "limit": 2}, [1, 2]),
        ({"startTime": START + HOUR + 1, "limit": 2}, [2, 3]),
        ({"endTime": START + 4 * HOUR, "limit": 2}, [3, 4]),
        ({"startTime": START + 2 * HOUR, "endTime": START + 4 * HOUR}, [2, 3, 4]),
        ({"startTime": START + 2 * HOUR, "endTime": START + 4 * HOUR, "limit": 2}, [2, 3]),
        ({"startTime": START + 20 * HOUR}, []),
        ({"startTime": START + 4 * HOUR, "endTime": START + 2 * HOUR}, []),
        ({"startTime": 1000 * START, "endTime": 1000 * (START + HOUR)}, [0, 1]),
    ],
    ids=str,
)
def test_recorded_bars_are_chosen_by_the_rules_of_the_exchange(
    served: Exchange, parameters: dict[str, int], expected: list[int]
) -> None:
    assert hours(served, **parameters) == expected


def test_recorded_rows_are_served_as_they_are(served: Exchange) -> None:
    assert served.klines("XRPUSDT", "1h", limit=1) == [bar(START + 9 * HOUR)]


def test_recorded_times_come_in_microseconds_too(served: Exchange) -> None:
    headers = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    [row] = served.get("/api/v3/klines?symbol=XRPUSDT&interval=1h&limit=1", headers=headers).json()
    open_time = (START + 9 * HOUR) * 1000
    assert (row[0], row[6]) == (open_time, open_time + HOUR * 1000 - 1)


@pytest.mark.parametrize(("late", "shown"), [(0, 4), (1, 5)])
def test_only_bars_that_have_closed_are_shown(recording: Path, late: int, shown: int) -> None:
    now = instant(START + 5 * HOUR - 1 + late)
    assert hours(Exchange(build_app(data=recording, now=now))) == list(range(shown))


def test_an_interval_that_was_not_recorded_has_no_bars(served: Exchange) -> None:
    assert served.klines("XRPUSDT", "4h") == []


def test_a_symbol_that_was_not_recorded_is_unknown(served: Exchange) -> None:
    assert served.error("symbol=BTCUSDT&interval=1h")[:2] == (400, -1121)


# --- exchangeInfo ----------------------------------------------------------------------------------------------


def test_recorded_symbols_trade_unless_the_record_says_otherwise(recording: Path) -> None:
    ended = {"symbol": "LUNAUSDT", "status": "BREAK", "permissions": ["SPOT"]}
    write(recording, "exchange_info/2022.json.gz", {"symbols": [ended]})
    write(recording, "exchange_info/2021.json.gz", {"symbols": []})
    symbols = Exchange(build_app(data=recording)).get("/api/v3/exchangeInfo").json()["symbols"]
    assert {entry["symbol"]: entry["status"] for entry in symbols} == {"XRPUSDT": "TRADING", "LUNAUSDT": "BREAK"}
    assert ended in symbols


def test_a_listed_symbol_without_bars_has_none(recording: Path) -> None:
    write(recording, "exchange_info/2022.json.gz", {"symbols": [{"symbol": "LUNAUSDT", "status": "BREAK"}]})
    assert Exchange(build_app(data=recording)).klines("LUNAUSDT", "1h") == []


# --- a folder with one face ------------------------------------------------------------------------------------


def test_rest_without_an_archive_is_an_archive_without_files(served: Exchange) -> None:
    response = served.get(path_of("XRPUSDT", "1h", "2023-01"))
    assert (response.status_code, "NoSuchKey" in response.text) == (404, True)


def test_an_archive_without_rest_is_an_exchange_without_symbols(folder: Path) -> None:
    at = Exchange(build_app(data=folder))
    assert at.error("symbol=BTCUSDT&interval=1h")[:2] == (400, -1121)
    assert at.get("/api/v3/exchangeInfo").json()["symbols"] == []


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no folder data/"):
        build_app(data=tmp_path)


# --- a folder of real files ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`served/` in the archive's layout, and a secret beside it."""
    (tmp_path / "served/data/spot").mkdir(parents=True)
    (tmp_path / "served/data/spot/file.zip").write_bytes(b"real")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "served"


def test_a_file_in_the_folder_is_served_as_it_is(folder: Path) -> None:
    assert folder_files(folder)("data/spot/file.zip") == b"real"


def test_a_folder_that_holds_the_layout_as_archive_is_served_too(folder: Path) -> None:
    folder.rename(folder.with_name("archive"))
    assert Exchange(build_app(data=folder.parent)).get("/data/spot/file.zip").content == b"real"


@pytest.mark.parametrize("path", ["data/spot/other.zip", "data/spot", "data", ""])
def test_what_is_no_file_in_the_folder_is_absent(folder: Path, path: str) -> None:
    assert folder_files(folder)(path) is None


@pytest.mark.parametrize("path", ["../secret", "data/../../secret", "data/spot/../../../secret"])
def test_a_path_out_of_the_folder_is_absent(folder: Path, path: str) -> None:
    assert folder_files(folder)(path) is None


def test_an_absolute_path_is_absent(folder: Path) -> None:
    assert folder_files(folder)(str(folder.parent / "secret")) is None


def test_a_link_out_of_the_folder_is_absent(folder: Path) -> None:
    (folder / "data/link").symlink_to(folder.parent / "secret")
    assert folder_files(folder)("data/link") is None


# --- real recordings -------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
@pytest.mark.parametrize("interval", ["15m", "1h", "1d"])
def test_real_bodies_are_served_as_they_are(shared_data: Path, symbol: str, interval: str) -> None:
    files = sorted((shared_data / "rest" / symbol / interval).glob("*.json.gz"))
    real = [row for file in files for row in json.loads(gzip.decompress(file.read_bytes()))]
    at = Exchange(build_app(data=shared_data))
    paged: list[Any] = []
    while page := at.klines(symbol, interval, startTime=paged[-1][0] + 1 if paged else 0, limit=1000):
        paged += page
    assert paged == real
    assert len(paged) > 1000


@pytest.mark.shared
def test_real_archive_files_are_served_beside_them(shared_data: Path) -> None:
    at = Exchange(build_app(data=shared_data))
    path = path_of("BTCUSDT", "5m", "2024-12")
    assert at.get(path).content == (shared_data / "archive" / path.lstrip("/")).read_bytes()
    checksum = (shared_data / "archive" / f"{path.lstrip('/')}.CHECKSUM").read_bytes()
    assert at.get(f"{path}.CHECKSUM").content == checksum
    assert len(comparable(at.archived("BTCUSDT", "5m", "2024-12"))) == 31 * 288


@pytest.mark.shared
def test_the_real_list_of_symbols_is_served_with_todays_limits(shared_data: Path) -> None:
    [file] = (shared_data / "exchange_info").glob("*.json.gz")
    real = json.loads(gzip.decompress(file.read_bytes()))["symbols"]
    at = Exchange(build_app(data=shared_data))
    body = at.get("/api/v3/exchangeInfo").json()
    assert sorted(body["symbols"], key=lambda entry: entry["symbol"]) == sorted(real, key=lambda entry: entry["symbol"])
    assert body["rateLimits"][0]["limit"] == 6000
    ended = [entry["symbol"] for entry in at.get("/api/v3/exchangeInfo?symbolStatus=BREAK").json()["symbols"]]
    assert len(ended) == 433
