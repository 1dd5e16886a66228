from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import websocket
from starlette.testclient import TestClient

from ingestion.binance.exchange import Exchange
from ingestion.errors import ConfigurationError, UsageError
from ingestion.history.month import Outcome
from ingestion.history.run import land_history
from ingestion.klines import Month, Series
from ingestion.raw_zone import Environment, RawZone
from ingestion.settings import load_settings
from ingestion.simulator.server import build_app, running

SERIES, JULY = Series("SOLUSDT", "1d"), Month(2024, 7)
ZIP = "/data/spot/monthly/klines/SOLUSDT/1d/SOLUSDT-1d-2024-07.zip"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(build_app(seed=1)) as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`served/` in the archive's layout, and a secret beside it."""
    root = tmp_path_factory.mktemp("folder")
    (root / "served/data/spot").mkdir(parents=True)
    (root / "served/data/spot/good.zip").write_bytes(b"real")
    (root / "served/data/spot/stale.zip").write_bytes(b"replaced")
    (root / "served/data/spot/stale.zip.CHECKSUM").write_bytes(b"of the file before")
    (root / "secret").write_bytes(b"secret")
    return root / "served"


@pytest.fixture(scope="module")
def folder_address(folder: Path) -> Iterator[str]:
    with running(build_app(data=folder)) as address:
        yield address


def request(address: str, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    """Sends the path as it is; other clients tidy up `..` before it leaves."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_the_server_listens_on_loopback_alone(address: str) -> None:
    assert urlsplit(address).hostname == "127.0.0.1"


def test_a_file_is_served_as_a_zip(address: str) -> None:
    status, headers, body = request(address, ZIP)
    assert (status, headers["content-type"], body[:4]) == (200, "application/zip", b"PK\x03\x04")


def test_a_checksum_is_one_line_of_sha256sum(address: str) -> None:
    body = request(address, ZIP)[2]
    expected = f"{hashlib.sha256(body).hexdigest()}  SOLUSDT-1d-2024-07.zip\n"
    assert request(address, f"{ZIP}.CHECKSUM")[2].decode() == expected


@pytest.mark.parametrize("path", [ZIP.replace("2024-07", "2020-07"), f"{ZIP.replace('SOL', 'ABC')}.CHECKSUM"])
def test_what_is_absent_is_answered_with_the_xml_of_the_host(address: str, path: str) -> None:
    status, headers, body = request(address, path)
    assert (status, headers.get_content_type()) == (404, "application/xml")
    assert b"<Error><Code>NoSuchKey</Code>" in body


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", [ZIP, f"{ZIP}.CHECKSUM", "/data/none.zip", "/", "/elsewhere"])
def test_every_answer_says_that_it_is_simulated_and_by_what(address: str, method: str, path: str) -> None:
    assert request(address, path, method)[1].get_all("x-klinehouse-simulated") == ["seed 1"]


def test_an_answer_from_a_folder_names_the_folder(folder_address: str) -> None:
    assert request(folder_address, "/data/spot/good.zip")[1]["x-klinehouse-simulated"] == "files of served"


def test_a_file_of_a_folder_is_served_as_it_is(folder_address: str) -> None:
    assert request(folder_address, "/data/spot/good.zip")[2] == b"real"


def test_a_file_of_a_folder_without_a_checksum_gets_one(folder_address: str) -> None:
    expected = f"{hashlib.sha256(b'real').hexdigest()}  good.zip\n"
    assert request(folder_address, "/data/spot/good.zip.CHECKSUM")[2].decode() == expected


def test_a_checksum_in_the_folder_is_served_as_it_is_even_when_stale(folder_address: str) -> None:
    assert request(folder_address, "/data/spot/stale.zip.CHECKSUM")[2] == b"of the file before"


@pytest.mark.parametrize(
    "path",
    [
        "/data/../../secret",
        "/data/spot/../../../secret",
        "/data/%2e%2e/%2e%2e/secret",
        "/data/..%2f..%2fsecret",
        "/data/%252e%252e/%252e%252e/secret",
        "/data/..\\..\\secret",
        "/data/../../../../../../../../etc/passwd",
        "/data/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/data//etc/passwd",
    ],
)
def test_a_path_out_of_the_folder_is_not_served(folder_address: str, path: str) -> None:
    assert request(folder_address, path)[0] == 404


def test_a_checksum_of_a_file_outside_of_the_folder_is_not_served(folder_address: str) -> None:
    assert request(folder_address, "/data/../../secret.CHECKSUM")[0] == 404


# --- landed from the simulated exchange ------------------------------------------------------------------------


@pytest.fixture
def zone(tmp_path: Path, address: str) -> RawZone:
    """A raw zone that the simulated exchange of seed 1 has fed."""
    settings = load_settings(archive_url=address, home=tmp_path)
    results = land_history(settings, [SERIES], [JULY])
    assert [(result.outcome, result.rows) for result in results] == [(Outcome.LANDED, 31)]
    return RawZone(settings.raw_root)


def test_a_month_of_the_simulated_exchange_lands_as_simulated(zone: RawZone) -> None:
    assert zone.environment() == Environment("simulated", "seed 1")


def test_another_simulation_does_not_mix_with_it(zone: RawZone, tmp_path: Path) -> None:
    with (
        running(build_app(seed=2)) as other,
        pytest.raises(ConfigurationError, match=r"\(seed 1\).*\(seed 2\)"),
    ):
        land_history(load_settings(archive_url=other, home=tmp_path), [SERIES], [JULY.next])
    assert [file.month for file in zone.history_files()] == [JULY]


def test_check_names_the_simulation(address: str) -> None:
    with Exchange(load_settings(archive_url=address)) as exchange:
        assert exchange.archive.check() == "seed 1"


# --- from the command line -------------------------------------------------------------------------------------

KLINEHOUSE = str(Path(sys.executable).with_name("klinehouse"))


def test_the_command_takes_faults_outages_and_a_clock_that_stands_still() -> None:
    options = ["--now", "2023-03-24T13:00", "--outage", "2023-03-24T12:40/2023-03-24T14:00"]
    options += ["--fault", "blocked=451", "--fault", "latency=0"]
    command = [KLINEHOUSE, "simulate", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads(server.stdout.readline())["url"]
            refused = request(url, "/api/v3/time")
            counted = request(url, "/simulator/fired")
        finally:
            server.terminate()
            server.wait(timeout=20)
    assert refused[0] == 451
    assert refused[1]["x-klinehouse-simulated"].startswith("seed 1, halted 2023-03-24T12:40:00/")
    assert json.loads(counted[2])["fired"]["blocked"] == 1


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--fault", "lag=1", "latency, errors"),
        ("--outage", "now", "is not an outage"),
        ("--now", "x", "not a time"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(option: str, value: str, says: str) -> None:
    done = subprocess.run([KLINEHOUSE, "simulate", option, value], capture_output=True, text=True)
    assert (done.returncode, says in done.stderr) == (2, True)


def test_the_command_serves_a_stream_on_a_fast_clock_and_writes_what_closed(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    options = ["--now", "2025-06-15T12:00", "--speed", "600", "--truth", str(truth), "--symbols-extra", "3"]
    command = [KLINEHOUSE, "simulate", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads(server.stdout.readline())["stream_url"]
            client = websocket.create_connection(f"{url}/ws/sim003usdt@kline_1m", timeout=20)
            while not (kline := json.loads(client.recv())["k"])["x"]:
                pass
            client.shutdown()
        finally:
            server.terminate()
            server.wait(timeout=20)
    line = json.loads(truth.read_text().splitlines()[0])
    assert (kline["s"], line["symbol"], line["values"][4]) == ("SIM003USDT", "SIM003USDT", kline["c"])


def test_the_command_refuses_a_truth_that_cannot_be_written(tmp_path: Path) -> None:
    command = [KLINEHOUSE, "simulate", "--truth", str(tmp_path / "none" / "truth.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)


def test_recordings_have_no_stream(folder: Path, folder_address: str, tmp_path: Path) -> None:
    assert request(folder_address, "/simulator/stream")[0] == 404
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        websocket.create_connection(folder_address.replace("http", "ws") + "/ws", timeout=20)
    with pytest.raises(UsageError, match="no stream"):
        build_app(data=folder, truth=tmp_path / "truth.jsonl")


def test_a_clock_may_go_on() -> None:
    begin = datetime.now(UTC)
    served = json.loads(TestClient(build_app()).get("/api/v3/time").content)["serverTime"]
    assert int(begin.timestamp() * 1000) <= served <= int(datetime.now(UTC).timestamp() * 1000)
