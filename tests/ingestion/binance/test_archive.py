from __future__ import annotations

import hashlib
import io
import socket
import struct
import subprocess
import sys
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.binance.archive import Archive, BadArchiveFile, daily_path, monthly_path, unzip_single
from ingestion.binance.http import Answer, Http, Traffic
from ingestion.errors import ExchangeRefused
from ingestion.klines import Month, Series
from ingestion.settings import load_settings

if TYPE_CHECKING:
    from tests.ingestion.conftest import ArchiveHost

SERIES = Series("BTCUSDT", "5m")
PATH = monthly_path(SERIES, Month(2024, 7))
CHECKSUM = f"{PATH}.CHECKSUM"
NAME = "BTCUSDT-5m-2024-07.zip"
MEMBER = "BTCUSDT-5m-2024-07.csv"
TEXT = b"1719792000000,1.00000000\n" * 100
WRONG = f"{'0' * 64}  {NAME}\n".encode()


def refused(archive: Archive) -> BadArchiveFile:
    with pytest.raises(BadArchiveFile) as caught:
        archive.fetch(PATH)
    return caught.value


# --- names -----------------------------------------------------------------------------------------------------


def test_a_monthly_file_has_the_name_that_the_archive_gives_it() -> None:
    assert PATH == "data/spot/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-07.zip"


def test_a_daily_file_has_the_name_that_the_archive_gives_it() -> None:
    path = daily_path(SERIES, date(2024, 7, 9))
    assert path == "data/spot/daily/klines/BTCUSDT/5m/BTCUSDT-5m-2024-07-09.zip"


def test_the_archive_writes_a_month_as_1mo() -> None:
    path = monthly_path(Series("BTCUSDT", "1M"), Month(2024, 7))
    assert path == "data/spot/monthly/klines/BTCUSDT/1mo/BTCUSDT-1mo-2024-07.zip"


def test_a_minute_is_not_written_as_a_month() -> None:
    assert monthly_path(Series("BTCUSDT", "1m"), Month(2024, 7)).endswith("/1m/BTCUSDT-1m-2024-07.zip")


# --- a good file -----------------------------------------------------------------------------------------------


def test_a_verified_file_is_unpacked(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    assert archive.fetch(PATH).text == TEXT


def test_a_file_says_where_it_came_from(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    file = archive.fetch(PATH)
    assert (file.url, file.sha256, file.content) == (f"{host.url}/{PATH}", hashlib.sha256(content).hexdigest(), content)


def test_a_file_says_when_it_was_fetched(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    before = datetime.now(UTC)
    assert before <= archive.fetch(PATH).fetched_at <= datetime.now(UTC)


def test_a_file_of_the_real_exchange_names_no_simulation(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    archive.fetch(PATH)
    assert archive.simulation is None


def test_a_file_of_a_simulated_host_names_the_simulation(host: ArchiveHost, archive: Archive) -> None:
    simulated = {"x-klinehouse-simulated": "seed 7"}
    content = host.publish(PATH, TEXT)
    host.script(PATH, host.reply(body=content, headers=simulated))
    host.script(CHECKSUM, host.reply(body=host.checksum(content, NAME), headers=simulated))
    archive.fetch(PATH)
    assert archive.simulation == "seed 7"


def test_check_names_the_simulation(host: ArchiveHost, archive: Archive) -> None:
    path = "data/spot/monthly/klines/BTCUSDT/1d/BTCUSDT-1d-2020-01.zip.CHECKSUM"
    host.script(path, host.reply(body=b"x", headers={"x-klinehouse-simulated": "seed 7"}))
    assert archive.check() == "seed 7"


def test_check_of_a_host_without_the_file_names_no_simulation(archive: Archive) -> None:
    assert archive.check() is None


def test_a_file_that_the_archive_does_not_have_is_none(archive: Archive) -> None:
    assert archive.fetch(PATH) is None


def test_an_absent_file_is_asked_for_once_and_its_checksum_never(host: ArchiveHost, archive: Archive) -> None:
    archive.fetch(PATH)
    assert host.asked == [PATH]


# --- checksums -------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused_with_the_content(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(CHECKSUM, WRONG)
    assert refused(archive).content == content


def test_a_wrong_checksum_is_refused_with_both_sums(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(CHECKSUM, WRONG)
    assert refused(archive).reason == f"SHA-256 is {hashlib.sha256(content).hexdigest()}, its .CHECKSUM says {'0' * 64}"


def test_a_wrong_checksum_is_tried_once_more(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    host.script(CHECKSUM, WRONG)
    refused(archive)
    assert host.asked == [PATH, CHECKSUM] * 2


def test_a_checksum_replaced_after_its_file_is_believed_at_the_second_try(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(CHECKSUM, WRONG, host.checksum(content, NAME))
    assert archive.fetch(PATH).text == TEXT


def test_a_file_replaced_after_its_checksum_is_believed_at_the_second_try(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(PATH, b"the old file", content)
    assert archive.fetch(PATH).text == TEXT


def test_a_file_without_a_checksum_is_refused(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    host.script(CHECKSUM, 404)
    assert refused(archive).reason == "its .CHECKSUM is missing"


def test_a_checksum_of_another_file_is_refused(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(CHECKSUM, host.checksum(content, "BTCUSDT-5m-2024-08.zip"))
    reason = refused(archive).reason
    assert reason.startswith("its .CHECKSUM is not the checksum line of that file but '")
    assert "BTCUSDT-5m-2024-08.zip" in reason


@pytest.mark.parametrize("line", [b"", b"<html>", b"\xff\xfe", b"0" * 64, b"0" * 5000, f"{'g' * 64}  {NAME}".encode()])
def test_a_checksum_that_is_no_checksum_line_is_refused(host: ArchiveHost, archive: Archive, line: bytes) -> None:
    host.publish(PATH, TEXT)
    host.script(CHECKSUM, line)
    assert refused(archive).reason.startswith("its .CHECKSUM is not the checksum line of that file but ")


@pytest.mark.parametrize("form", ["{0}  {1}", "{0}  {1}\r\n", "{0} *{1}\n", "{2}  {1}\n"])
def test_a_checksum_may_be_in_any_form_of_sha256sum(host: ArchiveHost, archive: Archive, form: str) -> None:
    content = host.publish(PATH, TEXT)
    digest = hashlib.sha256(content).hexdigest()
    host.script(CHECKSUM, form.format(digest, NAME, digest.upper()).encode())
    assert archive.fetch(PATH).text == TEXT


# --- a host that refuses, fails or is out of reach -------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 500, 501, 502, 503, 504])
def test_an_answer_that_passes_is_tried_again(host: ArchiveHost, archive: Archive, status: int) -> None:
    content = host.publish(PATH, TEXT)
    host.script(PATH, status, status, content)
    assert archive.fetch(PATH).text == TEXT


def test_a_checksum_is_tried_again_too(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(CHECKSUM, 503, 503, host.checksum(content, NAME))
    assert archive.fetch(PATH).text == TEXT


def test_a_host_that_keeps_failing_is_asked_as_often_as_set(host: ArchiveHost, archive: Archive) -> None:
    host.script(PATH, 503)
    with pytest.raises(ExchangeRefused):
        archive.fetch(PATH)
    assert host.asked == [PATH] * 3


def test_a_host_that_keeps_failing_is_named_with_the_url_and_a_remedy(host: ArchiveHost, archive: Archive) -> None:
    host.script(PATH, 503)
    with pytest.raises(ExchangeRefused) as caught:
        archive.fetch(PATH)
    assert f"{host.url}/{PATH} failed 3 times: HTTP 503" in caught.value.message
    assert "KLINEHOUSE_ARCHIVE_URL" in caught.value.remedy


@pytest.mark.parametrize("status", [400, 401, 403, 405, 410, 451])
def test_a_refusal_is_not_tried_again(host: ArchiveHost, archive: Archive, status: int) -> None:
    host.script(PATH, status)
    with pytest.raises(ExchangeRefused, match=f"{PATH} was refused with HTTP {status}"):
        archive.fetch(PATH)
    assert host.asked == [PATH]


@pytest.mark.parametrize("status", [401, 403, 451])
def test_a_refusal_that_has_a_remedy_names_the_setting(host: ArchiveHost, archive: Archive, status: int) -> None:
    host.script(PATH, status)
    with pytest.raises(ExchangeRefused) as caught:
        archive.fetch(PATH)
    assert "KLINEHOUSE_ARCHIVE_URL" in caught.value.remedy


def test_a_redirect_is_refused_not_followed(host: ArchiveHost, archive: Archive) -> None:
    host.script(PATH, host.reply(302, headers={"location": f"{host.url}/elsewhere"}))
    with pytest.raises(ExchangeRefused, match="HTTP 302"):
        archive.fetch(PATH)
    assert host.asked == [PATH]


def test_a_body_cut_short_on_the_way_is_tried_again(host: ArchiveHost, archive: Archive) -> None:
    content = host.publish(PATH, TEXT)
    host.script(PATH, host.reply(body=content[:50], missing=len(content) - 50), content)
    assert archive.fetch(PATH).text == TEXT


def test_a_host_out_of_reach_is_refused_with_its_url() -> None:
    with socket.socket() as bound_but_silent:
        bound_but_silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound_but_silent.getsockname()[1]}"
        settings = load_settings(archive_url=url, http_attempts=2)
        with pytest.raises(ExchangeRefused, match=f"{url}/{PATH} failed 2 times"):
            Archive(settings, Http(settings, "KLINEHOUSE_ARCHIVE_URL", Traffic())).fetch(PATH)


# --- broken and hostile zips -----------------------------------------------------------------------------------


def _serve(host: ArchiveHost, content: bytes) -> None:
    host.script(PATH, content)
    host.script(CHECKSUM, host.checksum(content, NAME))


def test_a_truncated_zip_is_refused_with_its_content(host: ArchiveHost, archive: Archive) -> None:
    content = host.zipped({MEMBER: TEXT})[:-30]
    _serve(host, content)
    bad = refused(archive)
    assert bad.reason.startswith("not a readable zip")
    assert bad.content == content


def test_a_page_instead_of_a_zip_is_refused(host: ArchiveHost, archive: Archive) -> None:
    _serve(host, b"<html>Service unavailable</html>")
    assert refused(archive).reason.startswith("not a readable zip")


def test_a_zip_with_two_members_is_refused(host: ArchiveHost, archive: Archive) -> None:
    _serve(host, host.zipped({MEMBER: TEXT, "README.txt": b"hello"}))
    assert "README.txt" in refused(archive).reason


def test_a_zip_without_members_is_refused(host: ArchiveHost, archive: Archive) -> None:
    _serve(host, host.zipped({}))
    assert f"expected only {MEMBER}" in refused(archive).reason


@pytest.mark.parametrize("member", ["BTCUSDT-5m-2024-08.csv", "../BTCUSDT-5m-2024-07.csv", "/etc/passwd"])
def test_a_zip_with_a_member_of_another_name_is_refused(host: ArchiveHost, archive: Archive, member: str) -> None:
    _serve(host, host.zipped({member: TEXT}))
    assert f"expected only {MEMBER}" in refused(archive).reason


def test_a_zip_that_declares_more_than_the_limit_is_refused(host: ArchiveHost, archive: Archive) -> None:
    _serve(host, host.zipped({MEMBER: bytes(3 << 20)}))
    assert f"declares {3 << 20} bytes, more than {1 << 20}" in refused(archive).reason


def _declare(content: bytes, size: int) -> bytes:
    """The same zip with another uncompressed size in its central directory, which is what readers go by."""
    lying = bytearray(content)
    struct.pack_into("<I", lying, content.index(b"PK\x01\x02") + 24, size)
    return bytes(lying)


@pytest.mark.parametrize("size", [0, len(TEXT) - 1, len(TEXT) + 1, 1 << 20])
def test_a_zip_that_lies_about_its_size_is_refused(host: ArchiveHost, archive: Archive, size: int) -> None:
    _serve(host, _declare(host.zipped({MEMBER: TEXT}), size))
    assert "is not what the zip declares" in refused(archive).reason


_UNZIP = """
import resource, sys, zipfile
from pathlib import Path
from ingestion.binance.archive import unzip_single

content = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unzip_single(content, "bomb.csv", 1 << 30)
except zipfile.BadZipFile:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_bomb_is_inflated_no_further_than_the_size_it_declares(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("bomb.csv", bytes(256 << 20))
    (tmp_path / "bomb.zip").write_bytes(_declare(sink.getvalue(), 1000))
    command = [sys.executable, "-c", _UNZIP, "bomb.zip"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert int(process.stdout) < 64 << 10, "kilobytes of memory taken"


def test_an_answer_larger_than_the_limit_is_refused(host: ArchiveHost, archive: Archive) -> None:
    _serve(host, bytes((1 << 20) + 1))
    assert refused(archive).reason == f"{host.url}/{PATH} is larger than 1 MB"


def test_an_answer_as_large_as_the_limit_is_read(host: ArchiveHost, archive: Archive) -> None:
    _serve(host, bytes(1 << 20))
    assert refused(archive).reason.startswith("not a readable zip")


def test_a_stored_member_is_read_as_it_is(host: ArchiveHost) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MEMBER, TEXT)
    assert unzip_single(sink.getvalue(), MEMBER, 1 << 20) == TEXT


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_the_archive_does_not_use_is_refused(method: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        archive.writestr(MEMBER, TEXT)
    with pytest.raises(zipfile.BadZipFile, match="compression method"):
        unzip_single(sink.getvalue(), MEMBER, 1 << 20)


@given(st.binary(min_size=1, max_size=3000))
def test_every_text_survives_the_zip(text: bytes) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, text)
    assert unzip_single(sink.getvalue(), MEMBER, 3000) == text


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_byte_changed_in_the_packed_text_never_gives_another_text(position: int, change: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, TEXT)
    content = bytearray(sink.getvalue())
    begin, end = 30 + len(MEMBER), content.index(b"PK\x01\x02")
    content[begin + position % (end - begin)] ^= change
    try:
        text = unzip_single(bytes(content), MEMBER, 1 << 20)
    except zipfile.BadZipFile:
        return
    assert text == TEXT


def _near(base: bytes) -> st.SearchStrategy[bytes]:
    """A few bytes of `base` changed, taken out or put in."""
    edits = st.lists(st.tuples(st.integers(0, len(base)), st.integers(0, 2), st.binary(max_size=4)), max_size=4)

    def edited(steps: list[tuple[int, int, bytes]]) -> bytes:
        content = base
        for position, gone, new in steps:
            content = content[:position] + new + content[position + gone :]
        return content

    return edits.map(edited)


_PACKED = io.BytesIO()
with zipfile.ZipFile(_PACKED, "w", zipfile.ZIP_DEFLATED) as _archive:
    _archive.writestr(MEMBER, TEXT)
_ZIP = _PACKED.getvalue()
_LINE = f"{hashlib.sha256(_ZIP).hexdigest()}  {NAME}\n".encode()


class _Answers(Http):
    """The zip and its checksum without a network."""

    def __init__(self, content: bytes, line: bytes) -> None:
        self._bodies = {"zip": content, "CHECKSUM": line}

    def get(self, url: str, fields: object = None, *, passes: object = None) -> Answer:
        return Answer(200, {}, self._bodies[url.rsplit(".", 1)[-1]])


def _fetched(content: bytes, line: bytes) -> bytes | None:
    try:
        return Archive(load_settings(max_file_mb=1), _Answers(content, line)).fetch(PATH).text
    except BadArchiveFile:
        return None


@given(st.binary(max_size=200) | _near(_LINE))
def test_whatever_stands_in_a_checksum_the_text_comes_only_with_its_own(line: bytes) -> None:
    text = _fetched(_ZIP, line)
    digest = hashlib.sha256(_ZIP).hexdigest().encode()
    if text is None:
        assert line != digest + b"  " + NAME.encode() + b"\n"
    else:
        assert line.lower().startswith(digest)
        assert line.split()[1].lstrip(b"*") == NAME.encode()


@given(st.binary(max_size=300) | _near(_ZIP))
def test_whatever_comes_as_a_zip_gives_the_text_or_is_refused(content: bytes) -> None:
    """Its checksum agrees, so that the zip itself is what is looked at."""
    line = f"{hashlib.sha256(content).hexdigest()}  {NAME}\n".encode()
    assert _fetched(content, line) in (TEXT, None)


# --- what tells a change ---------------------------------------------------------------------------------------


def test_a_fingerprint_is_taken_without_fetching_the_file(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    fingerprint = archive.fingerprint(PATH)
    assert host.asked == [CHECKSUM]
    host.script(CHECKSUM, WRONG)
    host.asked.clear()
    assert refused(archive).fingerprint.headers == fingerprint.headers
    assert archive.fingerprint(PATH) == refused(archive).fingerprint != fingerprint


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_another_version_of_a_file_has_another_fingerprint(host: ArchiveHost, archive: Archive, header: str) -> None:
    found = set()
    for version in ("a", "b"):
        host.script(PATH, host.reply(body=b"same", headers={header: version}))
        found.add(archive.fingerprint(PATH))
    assert len(found) == 2


def test_a_host_without_head_still_tells_the_checksum(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    host.has_head = False
    assert archive.fingerprint(PATH).checksum.endswith(f"  {NAME}\n")


def test_a_zip_without_end_is_refused_with_a_fingerprint(host: ArchiveHost, archive: Archive) -> None:
    host.script(PATH, bytes((1 << 20) + 1))
    assert refused(archive).fingerprint == archive.fingerprint(PATH)


def test_a_checksum_without_end_is_no_checksum_line(host: ArchiveHost, archive: Archive) -> None:
    host.publish(PATH, TEXT)
    host.script(CHECKSUM, bytes((1 << 20) + 1))
    assert "is not the checksum line of that file" in refused(archive).reason
