import hashlib
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ingestion.grid import Window
from ingestion.provenance import Provenance, SourceFile

instants = st.datetimes(datetime(2017, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
counts = st.integers(0, 2**62)
files = st.builds(
    SourceFile,
    source=st.sampled_from(["archive_monthly", "archive_daily", "rest"]),
    url=st.text(max_size=40),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    rows=counts,
    bytes=counts,
    fetched_at=instants,
    start=instants,
    end=instants,
    duplicates=counts,
    conflicts=counts,
    broken=counts,
)
tuples_of_files = st.lists(files, max_size=3).map(tuple)


@given(
    st.builds(
        Provenance,
        files=tuples_of_files,
        rows=counts,
        sources=st.lists(st.text(max_size=20), max_size=3).map(tuple),
        covered_until=instants,
        holes=st.lists(st.builds(Window, instants, instants), max_size=3).map(tuple),
        replaced=tuples_of_files,
        off_grid=counts,
    )
)
def test_provenance_survives_its_json(provenance: Provenance) -> None:
    assert Provenance.from_json(provenance.to_json()) == provenance


@given(files, files)
def test_joined_answers_count_and_span_both(one: SourceFile, other: SourceFile) -> None:
    both = one.joined(other)
    for name in ("rows", "bytes", "duplicates", "conflicts", "broken"):
        assert getattr(both, name) == getattr(one, name) + getattr(other, name)
    assert (both.start, both.end) == (min(one.start, other.start), max(one.end, other.end))
    assert both.fetched_at == max(one.fetched_at, other.fetched_at)
    assert both.sha256 == hashlib.sha256((one.sha256 + other.sha256).encode()).hexdigest()
    assert (both.source, both.url) == (one.source, one.url)


@given(files, st.integers(-3, 3), st.integers(1, 3))
def test_answers_touch_when_nothing_lies_between_them(file: SourceFile, gap: int, length: int) -> None:
    hour = timedelta(hours=1)
    one = SourceFile("rest", file.url, file.sha256, 1, 1, file.fetched_at, file.start, file.start + hour)
    start = one.end + gap * hour
    other = SourceFile("rest", file.url, file.sha256, 1, 1, file.fetched_at, start, start + length * hour)
    expected = gap <= 0 and start + length * hour >= one.start
    assert one.touches(other) == other.touches(one) == expected
    elsewhere = SourceFile("rest", f"{file.url}x", file.sha256, 1, 1, file.fetched_at, one.start, one.end)
    assert not one.touches(elsewhere)


def test_a_month_tells_for_which_windows_a_source_spoke() -> None:
    day = timedelta(days=1)
    start = datetime(2024, 7, 1, tzinfo=UTC)
    spoken = [
        SourceFile(source, "x", "0" * 64, 1, 1, start, start + i * day, start + (i + 1) * day)
        for i, source in enumerate(["archive_daily", "rest", "archive_daily"])
    ]
    provenance = Provenance(tuple(spoken), 3, ("archive_daily", "rest"), start + 3 * day)
    assert provenance.spoke("archive_daily") == [
        Window(start, start + day),
        Window(start + 2 * day, start + 3 * day),
    ]
    assert provenance.spoke("archive_monthly") == []
