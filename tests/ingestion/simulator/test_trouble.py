"""Faults as a client meets them, and the books of what fired."""

import hashlib
import io
import threading
import time
import zipfile
from decimal import Decimal
from typing import Any

import pytest
from support.exchanges import Exchange, comparable, path_of, values

from ingestion.errors import UsageError
from ingestion.klines import Month, Series
from ingestion.simulator.faults import Faults
from ingestion.simulator.listings import LISTINGS
from ingestion.simulator.market import Market
from ingestion.simulator.trouble import Trouble

PATH = path_of("BTCUSDT", "1d", "2024-07")
NAME = PATH.rsplit("/", 1)[-1]
OTHER = path_of("BTCUSDT", "1d", "2024-08")
DAILY = path_of("BTCUSDT", "1h", "2024-07-09")
KLINES = "/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=1"


def fired(exchange: Exchange) -> dict[str, int]:
    return {name: count for name, count in exchange.get("/simulator/fired").json()["fired"].items() if count}


def is_whole(exchange: Exchange, path: str = PATH) -> bool:
    """Whether zip and checksum, asked for one after the other, agree and can be read."""
    response, checksum = exchange.get(path), exchange.get(f"{path}.CHECKSUM")
    agrees = checksum.text.split()[:1] == [hashlib.sha256(response.content).hexdigest()]
    return response.status_code == 200 and agrees and zipfile.is_zipfile(io.BytesIO(response.content))


# --- any request -----------------------------------------------------------------------------------------------


def test_without_faults_nothing_fires(exchange: Any) -> None:
    at = exchange()
    assert is_whole(at)
    assert at.get(KLINES).status_code == 200
    assert at.get("/simulator/fired").json() == {"fired": {"archive_differs": 0}, "differences": []}


def test_requests_are_counted_by_kind(exchange: Any) -> None:
    at = exchange()
    for path in (PATH, PATH, f"{PATH}.CHECKSUM", KLINES, "/api/v3/ping", "/api/v3/time", "/", "/api/v3/nothing"):
        at.get(path)
    at.get("/simulator/fired")
    expected = {"zip": 2, "checksum": 1, "klines": 1, "ping": 1, "time": 1, "other": 2}
    assert at.get("/simulator/requests").json() == expected


def test_latency_is_waited_before_every_answer(exchange: Any) -> None:
    at = exchange(faults=Faults(latency=0.2))
    begin = time.monotonic()
    assert [at.get(path).status_code for path in (PATH, KLINES)] == [200, 200]
    assert time.monotonic() - begin >= 0.4
    assert fired(at) == {"latency": 2}


def test_slow_answers_do_not_wait_for_each_other(exchange: Any) -> None:
    at = exchange(faults=Faults(latency=0.5))
    threads = [threading.Thread(target=at.get, args=["/api/v3/ping"]) for _ in range(8)]
    begin = time.monotonic()
    with at:  # one event loop for all
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - begin < 8 * 0.5


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [(403, "text/html", "403 Forbidden"), (451, "application/json", "Service unavailable from a restricted location")],
)
@pytest.mark.parametrize("path", [PATH, KLINES])
def test_a_blocked_address_gets_nothing(exchange: Any, status: int, kind: str, says: str, path: str) -> None:
    at = exchange(faults=Faults(blocked=status))
    response = at.get(path)
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (status, kind)
    assert says in response.text
    assert fired(at) == {"blocked": 1}


def answers(exchange: Exchange, path: str, count: int = 400) -> list[int]:
    return [exchange.get(path).status_code for _ in range(count)]


@pytest.mark.parametrize("path", ["/api/v3/ping", "/data/spot/none.zip"])
def test_a_share_of_requests_fails_and_every_failure_is_counted(exchange: Any, path: str) -> None:
    at = exchange(faults=Faults(errors=0.25))
    failed = answers(at, path).count(503)
    assert failed == pytest.approx(100, abs=35)
    assert fired(at) == {"errors": failed}


def test_the_same_attempts_fail_in_every_run_of_a_seed(exchange: Any) -> None:
    runs = [answers(exchange(faults=Faults(errors=0.3), seed=seed), "/api/v3/ping", 60) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_an_address_is_answered_in_the_end(exchange: Any) -> None:
    at = exchange(faults=Faults(errors=0.5))
    assert all(200 in answers(at, path_of("BTCUSDT", "1d", month), 30) for month in ("2021-01", "2021-02"))


# --- files -----------------------------------------------------------------------------------------------------

ILLNESSES = ["stale_checksum", "truncated_zip", "html_200", "access_denied"]


@pytest.mark.parametrize("fault", ILLNESSES)
def test_an_ill_file_is_no_whole_one_and_its_neighbour_is(exchange: Any, fault: str) -> None:
    at = exchange(faults=Faults(**{fault: (NAME,)}))
    assert [is_whole(at), is_whole(at), is_whole(at, OTHER)] == [False, False, True]
    assert fired(at) == {fault: 2}


@pytest.mark.parametrize("fault", ILLNESSES)
def test_an_ill_file_heals(exchange: Any, fault: str) -> None:
    at = exchange(faults=Faults(**{fault: (NAME,), "heal_after": 2}))
    assert [is_whole(at) for _ in range(4)] == [False, False, True, True]


def test_a_truncated_zip_is_half_of_it_and_has_the_checksum_of_the_whole(exchange: Any) -> None:
    whole = exchange().get(PATH).content
    at = exchange(faults=Faults(truncated_zip=1.0))
    assert at.get(PATH).content == whole[: len(whole) // 2]
    assert at.get(f"{PATH}.CHECKSUM").text.split()[0] == hashlib.sha256(whole).hexdigest()


def test_a_stale_checksum_is_well_formed(exchange: Any) -> None:
    line = exchange(faults=Faults(stale_checksum=1.0)).get(f"{PATH}.CHECKSUM").text
    assert len(line.split()[0]) == 64
    assert line.endswith(f"  {NAME}\n")


def test_a_page_in_place_of_a_zip_comes_with_200(exchange: Any) -> None:
    response = exchange(faults=Faults(html_200=1.0)).get(PATH)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_a_denied_file_is_refused_with_the_xml_of_the_host(exchange: Any) -> None:
    response = exchange(faults=Faults(access_denied=1.0)).get(PATH)
    assert (response.status_code, response.headers["content-type"]) == (403, "application/xml")
    assert "<Error><Code>AccessDenied</Code><Message>Access Denied</Message>" in response.text


def test_a_missing_month_is_absent_with_its_checksum_but_its_days_are_there(exchange: Any) -> None:
    at = exchange(faults=Faults(missing_monthly=1.0))
    assert [at.get(path).status_code for path in (PATH, f"{PATH}.CHECKSUM", DAILY)] == [404, 404, 200]
    assert fired(at) == {"missing_monthly": 2}


def test_a_short_month_is_its_first_third_and_looks_whole(exchange: Any) -> None:
    at = exchange(faults=Faults(short_monthly=(NAME,), heal_after=1))
    whole = exchange().archived("BTCUSDT", "1d", "2024-07")
    assert is_whole(at)
    assert (
        at.get(f"{PATH}.CHECKSUM").text != exchange(faults=Faults(short_monthly=(NAME,))).get(f"{PATH}.CHECKSUM").text
    )
    assert at.archived("BTCUSDT", "1d", "2024-07") == whole
    assert exchange(faults=Faults(short_monthly=1.0)).archived("BTCUSDT", "1d", "2024-07") == whole[:10]


def test_a_daily_file_is_never_short(exchange: Any) -> None:
    assert len(exchange(faults=Faults(short_monthly=1.0)).archived("BTCUSDT", "1h", "2024-07-09")) == 24


@pytest.mark.parametrize(("days", "status"), [(13, 200), (15, 404)])
def test_a_late_month_appears_later(exchange: Any, days: float, status: int) -> None:
    at = exchange(faults=Faults(late_monthly=days))  # the clock stands at the 15th, noon
    assert at.get(path_of("BTCUSDT", "1d", "2025-05")).status_code == status
    assert at.get(path_of("BTCUSDT", "1h", "2025-06-14")).status_code == 200


def test_a_share_of_files_is_about_that_share_and_the_same_in_every_run() -> None:
    def struck(seed: int, share: float = 0.3) -> list[int]:
        trouble = Trouble(Faults(truncated_zip=share), seed)
        return [number for number in range(1000) if trouble.strikes("truncated_zip", f"BTCUSDT-1d-{number}.zip")]

    assert struck(1) == struck(1) != struck(2)
    assert len(struck(1)) == pytest.approx(300, abs=50)
    assert set(struck(1, 0.1)) < set(struck(1, 0.3))
    assert (struck(1, 0.0), struck(1, 1.0)) == ([], list(range(1000)))


# --- an archive that differs from REST -------------------------------------------------------------------------


def differing(exchange: Exchange, interval: str, period: str) -> dict[int, tuple[Any, Any]]:
    """Open times (ms) whose bars differ between the faces: the values of REST and of the archive."""
    archived = exchange.archived("BTCUSDT", interval, period)
    rest = exchange.klines(interval=interval, startTime=int(archived[0][0]), endTime=int(archived[-1][0]), limit=1000)
    assert [row[0] for row in rest] == [int(row[0]) for row in archived]
    return {
        row[0]: (values(row), values(other))
        for row, other in zip(rest, archived, strict=True)
        if comparable([row]) != comparable([other])
    }


@pytest.fixture
def other_archive(exchange: Any) -> Exchange:
    return exchange(faults=Faults(archive_differs=0.05))


def test_the_bars_that_differ_are_those_in_the_books(other_archive: Exchange) -> None:
    found = differing(other_archive, "1h", "2024-07")
    books = other_archive.get("/simulator/fired").json()
    assert len(found) == pytest.approx(744 * 0.05, abs=20)
    assert [entry["open_time"] // 1000 for entry in books["differences"]] == sorted(found)
    assert fired(other_archive) == {"archive_differs": len(found)}
    for entry in books["differences"]:
        assert (entry["symbol"], entry["interval"]) == ("BTCUSDT", "1h")
        rest, archived = found[entry["open_time"] // 1000]
        for name, place, unit in (("close", 3, 10**8), ("volume", 4, 10**8), ("trades", 6, 1)):
            assert entry[name] == {"rest": rest[place] * unit, "archive": archived[place] * unit}


def test_a_bar_that_differs_is_a_possible_bar(other_archive: Exchange) -> None:
    for rest, archived in differing(other_archive, "1h", "2024-07").values():
        opened, high, low, close, volume, quote, trades, taker, taker_quote = archived
        assert archived[:3] == rest[:3]
        assert low <= min(opened, close) <= max(opened, close) <= high
        assert close != rest[3]
        assert 0 < taker <= volume < rest[4]
        assert 0 < trades < rest[6]
        assert 0 < taker_quote <= quote < rest[5]
        assert low * (1 - Decimal("1e-9")) <= quote / volume <= high * (1 + Decimal("1e-9"))


def test_days_and_their_month_differ_in_the_same_bars(other_archive: Exchange) -> None:
    day = other_archive.archived("BTCUSDT", "1h", "2024-07-09")
    assert [row for row in other_archive.archived("BTCUSDT", "1h", "2024-07") if row in day] == day


def test_the_same_bars_differ_in_every_run_of_a_seed(exchange: Any) -> None:
    faults = Faults(archive_differs=0.05)
    runs = [differing(exchange(faults=faults), "1h", "2024-07") for _ in range(2)]
    assert runs[0] == runs[1]


def test_bars_are_kept_when_no_share_is_planted() -> None:
    bars = Market(1).bars(Series("BTCUSDT", "1h"), Month(2024, 7))
    assert Trouble(Faults(), 1).differing(Series("BTCUSDT", "1h"), LISTINGS["BTCUSDT"], bars) is bars


# --- with recordings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [Faults(archive_differs=0.1), Faults(late_monthly=1)])
def test_recordings_cannot_be_told_to_be_otherwise(exchange: Any, tmp_path: Any, faults: Faults) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match="archive_differs or late_monthly"):
        exchange(data=tmp_path, faults=faults)


def test_recorded_files_fall_ill_too(exchange: Any, tmp_path: Any) -> None:
    file = tmp_path / PATH.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(exchange().get(PATH).content)
    at = exchange(data=tmp_path, faults=Faults(truncated_zip=1.0, heal_after=1))
    assert [is_whole(at), is_whole(at)] == [False, True]
