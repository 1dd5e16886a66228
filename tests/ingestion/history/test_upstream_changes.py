"""What changes at the source: schema drift in a hundred forms, files that are replaced, names that mean harm."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from support.hourly import HOUR, LATER, SERIES, Landing, Publisher, hours

from ingestion.binance.archive import daily_path, monthly_path
from ingestion.binance.wire import parse_archive_csv
from ingestion.errors import UsageError
from ingestion.grid import Window
from ingestion.history.draft import Draft
from ingestion.history.month import Outcome
from ingestion.history.plan import plan_month
from ingestion.klines import Month, Series
from ingestion.provenance import SourceFile
from ingestion.raw_zone import RawZone

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

JULY = Month(2024, 7)
DAY = 86_400_000


def daily_bars(month: Month = JULY, price: int = 2) -> list[list[str]]:
    """A month of daily bars as cells, each column of its own size so that swapped ones contradict each other."""
    start = int(month.start.timestamp()) * 1000
    return [
        [
            str(opens),
            *(f"{amount}.00000000" for amount in (price, price + 2, price - 1, price + 1, 10)),
            str(opens + DAY - 1),
            *("30.00000000", "7", "5.00000000", "15.00000000", "0"),
        ]
        for opens in range(start, int(month.end.timestamp()) * 1000, DAY)
    ]


def text_of(rows: list[list[str]], newline: str = "\n") -> bytes:
    return newline.join(",".join(row) for row in rows).encode() + newline.encode()


# --- C20: schema drift -----------------------------------------------------------------------------------------

HEADER = [*["open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"]]
HEADER += ["taker_buy_volume", "taker_buy_quote_volume", "ignore"]

RIGHT, REFUSED, EITHER = "right", "refused", "either"


def _with_cell(column: int, value: str, row: int = 4) -> bytes:
    rows = daily_bars()
    rows[row][column] = value
    return text_of(rows)


def _variants() -> Iterator[tuple[str, bytes, str]]:
    rows = daily_bars()
    plain = text_of(rows)
    yield "as it is", plain, RIGHT
    yield "no newline at the end", plain.rstrip(b"\n"), RIGHT
    yield "CRLF", text_of(rows, "\r\n"), RIGHT
    yield "CR", text_of(rows, "\r"), EITHER
    yield "a header", text_of([HEADER, *rows]), RIGHT
    yield "a header in capitals", text_of([[name.upper() for name in HEADER], *rows]), RIGHT
    yield "a header with CRLF", text_of([HEADER, *rows], "\r\n"), RIGHT
    yield "reversed", text_of(rows[::-1]), RIGHT
    yield "a row twice", text_of([*rows, rows[3]]), RIGHT
    yield "microseconds", text_of([[r[0] + "000", *r[1:6], r[6] + "000", *r[7:]] for r in rows]), RIGHT
    yield "both units", text_of([[r[0] + "000", *r[1:]] for r in rows[:9]] + rows[9:]), RIGHT
    yield "few decimals", plain.replace(b".00000000", b".0"), RIGHT
    yield "no decimals", plain.replace(b".00000000", b""), RIGHT
    yield "trailing zeros", plain.replace(b".00000000", b".0000000000"), EITHER
    yield "quoted cells", text_of([[f'"{cell}"' for cell in row] for row in rows]), RIGHT
    yield "a column of text at the end", text_of([[*row[:11], "x"] for row in rows]), RIGHT
    for column in range(12):
        yield f"without column {column}", text_of([row[:column] + row[column + 1 :] for row in rows]), REFUSED
        yield f"one more at {column}", text_of([[*row[:column], "0", *row[column:]] for row in rows]), REFUSED
    for column in range(10):
        order = [*range(column), column + 1, column, *range(column + 2, 12)]
        yield f"{column} and its neighbour swapped", text_of([[row[i] for i in order] for row in rows]), REFUSED
        header = [HEADER[i] for i in order]
        yield (
            f"the same with a header, {column}",
            text_of([header, *([row[i] for i in order] for row in rows)]),
            REFUSED,
        )
    swapped = [*range(10), 11, 10]
    yield "ignore before", text_of([[row[i] for i in swapped] for row in [HEADER, *rows]]), REFUSED
    for value in ["", "NULL", "nan", "inf", "-", "1,5", "1 000", "0x10", "1.5.0", "1e400", "9" * 21, "-1"]:
        yield f"a price of {value[:12]!r}", _with_cell(3, value), REFUSED
    yield "nine decimals", _with_cell(3, "1.123456789"), REFUSED
    for value in ("1e0", "1E0", "+1", "01", "1.", "1_0", "10E-1"):
        yield f"a price written {value!r}", _with_cell(3, value), EITHER
    for value in ["1720137600", "1720137600" + "0" * 9, "1.72e12", "2024-07-05", "-1720137600000", "", "17201376e5"]:
        yield f"a time of {value!r}", _with_cell(0, value), REFUSED
    for value in ("7.5", "-7", "", "1e1", "9" * 20):
        yield f"trades of {value!r}", _with_cell(8, value), REFUSED
    yield "a byte order mark", b"\xef\xbb\xbf" + plain, EITHER
    yield "UTF-16", plain.decode().encode("utf-16"), REFUSED
    yield "a zero byte", plain.replace(b"2.0", b"2\x000", 1), REFUSED
    yield "semicolons", plain.replace(b",", b";"), REFUSED
    yield "tabs", plain.replace(b",", b"\t"), REFUSED
    yield "a comma at the end of lines", plain.replace(b"\n", b",\n"), REFUSED
    yield "an empty file", b"", REFUSED
    yield "a header alone", text_of([HEADER]), REFUSED
    yield "another header", text_of([["time", *HEADER[1:]], *rows]), REFUSED
    yield "a header in the middle", text_of([*rows[:5], HEADER, *rows[5:]]), REFUSED
    yield "empty lines", plain.replace(b"\n", b"\n\n"), EITHER
    yield "half a row", plain[: len(plain) - 40], REFUSED
    yield "a line of totals", plain + b"total,31\n", REFUSED
    yield "a comment", b"# klines\n" + plain, REFUSED
    yield "a page", b"<html><body>Service unavailable</body></html>", REFUSED
    yield "JSON", json.dumps(rows).encode(), REFUSED
    yield "another month", text_of(daily_bars(JULY.next)), REFUSED


VARIANTS = list(_variants())


def test_there_are_a_hundred_variants() -> None:
    assert len({name for name, _, _ in VARIANTS}) == len(VARIANTS) >= 100


@pytest.mark.parametrize(("name", "text", "expected"), VARIANTS, ids=[name for name, _, _ in VARIANTS])
def test_drift_lands_right_or_is_quarantined(
    host: ArchiveHost, landing: Landing, name: str, text: bytes, expected: str
) -> None:
    series = Series("BTCUSDT", "1d")
    host.klines[series.symbol, series.interval] = []
    host.publish(monthly_path(series, JULY), text)
    [result] = landing.months(JULY, series=series)
    if expected == REFUSED or (expected == EITHER and result.quarantined):
        assert result.quarantined, "refused whole, or its rows"
        rows = landing.zone.read_history(series, JULY).to_pylist() if landing.zone.provenance(series, JULY) else []
        assert len(rows) < 31, "what is refused has not landed"
    else:
        assert result.problems == ()
        rows = landing.zone.read_history(series, JULY).to_pylist()
        assert len(rows) == 31
    right = {datetime.fromtimestamp(int(row[0]) // 1000, UTC): row for row in daily_bars()}
    for row in rows:
        cells = right[row["open_time"]]
        assert (row["open"], row["high"], row["close"]) == (Decimal(cells[1]), Decimal(cells[2]), Decimal(cells[4]))
        assert (row["low"], row["volume"]) == (Decimal(cells[3]), Decimal(cells[5]))
        assert (row["quote_volume"], row["trades"]) == (Decimal(cells[7]), 7)
        takers = (row["taker_buy_base_volume"], row["taker_buy_quote_volume"])
        assert takers == (Decimal(cells[9]), Decimal(cells[10]))


# --- C19: two hundred changes ----------------------------------------------------------------------------------

SYMBOLS = [f"S{number:02d}USDT" for number in range(21)]
MONTHS = [Month(2023, number) for number in range(1, 11)]
KINDS = ("corrected", "bar taken back", "stale checksum", "truncated", "page instead")


def _series(symbol: str) -> Series:
    return Series(symbol, "1d")


def _publish_all(host: ArchiveHost) -> None:
    for symbol in SYMBOLS:
        host.klines[symbol, "1d"] = []
        for month in MONTHS:
            host.publish(monthly_path(_series(symbol), month), text_of(daily_bars(month)))


def _change(host: ArchiveHost, kind: str, series: Series, month: Month) -> None:
    path = monthly_path(series, month)
    name = path.rsplit("/", 1)[-1]
    good = text_of(daily_bars(month, price=5))
    if kind == "bar taken back":
        good = text_of(daily_bars(month)[1:])
    content = host.publish(path, good)
    if kind == "stale checksum":
        host.script(f"{path}.CHECKSUM", host.checksum(b"another", name))
    elif kind == "truncated":
        host.script(path, content[: len(content) // 2])
    elif kind == "page instead":
        host.script(path, b"<html><body>The service is being maintained.</body></html>")


def _files(zone: RawZone) -> dict[tuple[str, Month], tuple[bytes, int]]:
    paths = {(file.series.symbol, file.month): Path(file.path) for file in zone.history_files()}
    return {key: (path.read_bytes(), path.stat().st_mtime_ns) for key, path in paths.items()}


def _rows(zone: RawZone, symbol: str, month: Month) -> list[dict[str, object]]:
    return zone.read_history(_series(symbol), month).drop_columns(["ingested_at"]).to_pylist()


def test_two_hundred_changes_are_all_noticed_and_only_their_months_written(
    host: ArchiveHost, landing: Landing, zone: RawZone, tmp_path: Path
) -> None:
    _publish_all(host)
    everything = [(symbol, month) for symbol in SYMBOLS for month in MONTHS]
    for symbol in SYMBOLS:
        landing.months(*MONTHS, series=_series(symbol))
    before = _files(zone)
    assert set(before) == set(everything)

    changed = {key: KINDS[i % len(KINDS)] for i, key in enumerate(everything[:200])}
    for (symbol, month), kind in changed.items():
        _change(host, kind, _series(symbol), month)
    host.asked.clear()
    results = {(s, r.month): r for s in SYMBOLS for r in landing.months(*MONTHS, series=_series(s))}
    after = _files(zone)

    good = {key for key, kind in changed.items() if kind in ("corrected", "bar taken back")}
    bad = set(changed) - good
    assert {key for key in everything if after[key] != before[key]} == good
    assert {key for key, result in results.items() if result.outcome is Outcome.LANDED} == good
    assert {key for key, result in results.items() if result.quarantined} == bad
    assert len(zone.quarantined()) == len(bad) == 120
    fetched = {path.rsplit("/", 1)[-1] for path in host.asked if path.endswith(".zip") and "/monthly/" in path}
    assert fetched == {monthly_path(_series(s), m).rsplit("/", 1)[-1] for s, m in changed}
    for symbol, month in good:
        assert len(zone.provenance(_series(symbol), month).replaced) == 1

    rebuilt = RawZone(str(tmp_path / "rebuilt"))
    for symbol, month in good:
        Landing(host, rebuilt).months(month, series=_series(symbol))
        assert _rows(zone, symbol, month) == _rows(rebuilt, symbol, month)

    host.asked.clear()
    for symbol in SYMBOLS[::4]:
        landing.months(*MONTHS, series=_series(symbol))
    assert _files(zone) == after
    assert [path for path in host.asked if path.endswith(".zip") and "/monthly/" in path] == []


# --- C21: zones ------------------------------------------------------------------------------------------------


@pytest.fixture
def any_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


def test_every_time_zone_gives_the_same_bytes(any_zone: pytest.MonkeyPatch) -> None:
    """A day on which clocks change, parsed, written and planned in each zone that there is."""
    series, fetched = SERIES, datetime(2024, 4, 2, 3, 4, 5, tzinfo=UTC)
    month = Month(2024, 3)
    window = Window(datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    text = hours(*window)
    made: dict[bytes, str] = {}
    zones = sorted(zoneinfo.available_timezones())
    assert len(zones) > 400
    for name in zones:
        any_zone.setenv("TZ", name)
        time.tzset()
        root = f"memory://{uuid.uuid4().hex}"
        zone = RawZone(root)
        parsed = parse_archive_csv(text, series, window, "archive_daily", fetched)
        draft = Draft(series)
        draft.put(SourceFile("archive_daily", "x", "0" * 64, 24, 1, fetched, *window), parsed)
        zone.write_history(series, month, draft.rows, draft.provenance(window))
        told = plan_month(series, month, fetched, zone.provenance(series, month), None)
        fs, path = fsspec.core.url_to_fs(root)
        content = b"".join(fs.cat_file(found) for found in sorted(fs.find(path)))
        fs.rm(path, recursive=True)
        made.setdefault(content + repr(told).encode(), name)
    assert len(made) == 1, list(made.values())


@pytest.mark.parametrize(
    "name", ["America/New_York", "Australia/Lord_Howe", "Pacific/Kiritimati", "Asia/Kathmandu", "Antarctica/Troll"]
)
def test_a_month_lands_alike_where_clocks_change(
    any_zone: pytest.MonkeyPatch, exchange: Publisher, landing: Landing, name: str
) -> None:
    any_zone.setenv("TZ", name)
    time.tzset()
    march = Month(2024, 3)
    for day in range(1, 31):
        start = datetime(2024, 3, day, tzinfo=UTC)
        landing.host.publish(daily_path(SERIES, date(2024, 3, day)), hours(start, start + 24 * HOUR))
    exchange.rest(march.start, march.end)
    landing.months(march, now=datetime(2024, 3, 31, 5, 30, tzinfo=UTC))
    assert landing.opens(march) == [march.start + i * HOUR for i in range(30 * 24 + 5)]


# --- C23: names that mean harm ---------------------------------------------------------------------------------

EVIL = [
    "..", "../x", "../../etc/passwd", "/etc/passwd", "//host/share", "\\\\host\\share", "C:\\x", "C:x", ".", ".x",
    "x/y", "x\\y", "x\0y", "\0", "", " ", "x y", "x\ty", "x\ny", "x\r\ny", "A" * 51, "A" * 300, "Ä" * 300, "\u202eTDSU",
    "BTC\u200f", "BTC\u200b", "BTC\u2066", "'; DROP TABLE bars; --", '"x', "`x`", "$(x)", "${x}", "{{ x }}", "{% x %}",
    "%2e%2e%2f", "..%2f", "%00", "~", "~root", "*", "?", "[a]", "!x", "#x", "<x>", "x|y", "x:y", "x=y", "x,y", "x;y",
    "-rf /", "@x", "a/../../b", "....//", "btcusdt", "x'x", "A..B", "..A", "A/..", "A\u2215B", "A\uff0fB", "\ufeffA",
]  # fmt: skip
ODD_BUT_ALLOWED = [
    "CON",
    "NUL",
    "AUX",
    "COM1",
    "A.",
    "-RF",
    "_",
    "A&B",
    "1",
    "A" * 50,
    "币安人生USDT",
    "\U0001d538" * 50,
    "Ñ",
]
PLACES = ("{}", "BTC{}", "{}USDT", "BTC{}USDT")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("evil", EVIL, ids=lambda evil: repr(evil[:20]))
def test_a_symbol_that_means_harm_is_no_symbol_or_stays_inside(
    host: ArchiveHost, landing: Landing, tmp_path: Path, evil: str, place: str
) -> None:
    try:
        series = Series(place.format(evil), "1h")
    except UsageError:
        return
    _lands_inside(host, landing, tmp_path, series)


@pytest.mark.parametrize("symbol", ODD_BUT_ALLOWED)
@pytest.mark.parametrize("interval", ["1h", "1M"])
def test_an_odd_symbol_stays_inside(
    host: ArchiveHost, landing: Landing, tmp_path: Path, symbol: str, interval: str
) -> None:
    _lands_inside(host, landing, tmp_path, Series(symbol, interval))


def _lands_inside(host: ArchiveHost, landing: Landing, tmp_path: Path, series: Series) -> None:
    """Land a file with a broken row, then a refused one, and look where everything went."""
    host.klines[series.symbol, series.interval] = []
    landing.settings = landing.settings.model_copy(update={"home": tmp_path})
    [result] = landing.months(JULY, series=series)
    zone = landing.zone
    zone.quarantine(f"{monthly_path(series, JULY).rsplit('/', 1)[-1]}", b"x", {"url": "x", "reason": "x"})
    zone.write_first_open_time(series, JULY.start)
    zone.write_history(series, JULY, _one_bar(series), Draft(series).provenance(Window(JULY.start, JULY.start + HOUR)))
    assert result.series == series
    assert zone.series() == [series]
    assert zone.first_open_time(series) == JULY.start
    outside = [path for path in tmp_path.iterdir() if path.name != "raw"]
    assert outside == []
    assert all("/../" not in path and path.startswith(("data/spot/", "api/v3/")) for path in host.asked)
    zone.release(series, "2024-07")
    assert zone.quarantined() == []


def _one_bar(series: Series) -> object:
    window = Window(JULY.start, JULY.end)
    return parse_archive_csv(hours(JULY.start, JULY.start + HOUR), series, window, "rest", LATER).rows


@pytest.mark.parametrize("member", [*EVIL, *(form.format("BTCUSDT-1h-2024-07.csv") for form in ("./{}", "{}/", "{}x"))])
def test_a_zip_member_that_means_harm_is_quarantined_under_the_name_of_its_zip(
    host: ArchiveHost, landing: Landing, tmp_path: Path, member: str
) -> None:
    path = monthly_path(SERIES, JULY)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = member
        archive.writestr(info, hours(JULY.start, JULY.end))
    host.script(path, sink.getvalue())
    host.script(f"{path}.CHECKSUM", host.checksum(sink.getvalue(), path.rsplit("/", 1)[-1]))
    [result] = landing.months(JULY)
    [problem] = result.quarantined
    assert Path(problem.kept_in) == tmp_path / "raw" / "quarantine" / "BTCUSDT-1h-2024-07.zip"
    assert [found.name for found in tmp_path.iterdir()] == ["raw"]
