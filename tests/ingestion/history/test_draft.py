"""Drafts of a month against a dict of bars, filled by the order of trust; differences against a walk through both."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.binance.wire import ParsedKlines
from ingestion.grid import Window
from ingestion.history.draft import Draft
from ingestion.klines import DECIMAL_COLUMNS, KLINE_SCHEMA, Series
from ingestion.provenance import SourceFile
from ingestion.reconcile import differences
from ingestion.row_rules import BrokenRows

SERIES = Series("BTCUSDT", "1h")
BASE = datetime(2024, 7, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAYS = 3
TRUST = ["archive_monthly", "archive_daily", "rest"]

Bars = dict[int, int]  # the hour of a bar, and its price


@dataclass(frozen=True)
class Came:
    """An answer: who gave it, for which hours it speaks, its bars."""

    source: str
    start: int
    end: int
    bars: tuple[tuple[int, int], ...]
    version: int = 0

    @property
    def file(self) -> SourceFile:
        url = "rest" if self.source == "rest" else f"{self.source} {self.start}"
        sha256 = f"{self.version:064d}"
        window = (BASE + self.start * HOUR, BASE + self.end * HOUR)
        return SourceFile(self.source, url, sha256, len(self.bars), 1, BASE, *window)

    @property
    def parsed(self) -> ParsedKlines:
        rows = table(self.source, dict(self.bars))
        return ParsedKlines(rows, BrokenRows(rows.slice(0, 0), ()), rows.slice(0, 0), 0, 0)


def table(source: str, bars: Bars) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for hour in sorted(bars):
        opens = BASE + hour * HOUR
        texts = {"symbol": "BTCUSDT", "interval": "1h", "source": source, "ingested_at": BASE, "trades": 1}
        times = {"open_time": opens, "close_time": opens + HOUR - timedelta(milliseconds=1)}
        rows.append(dict.fromkeys(DECIMAL_COLUMNS, Decimal(1)) | texts | times | {"close": Decimal(bars[hour])})
    return pa.Table.from_pylist(rows, schema=KLINE_SCHEMA)


@st.composite
def answers(draw: st.DrawFn) -> Came:
    source = draw(st.sampled_from(TRUST))
    day = draw(st.integers(0, DAYS - 1))
    start, end = (0, 24 * DAYS) if source == "archive_monthly" else (24 * day, 24 * day + 24)
    if source == "rest":
        start = draw(st.integers(0, 24 * DAYS - 1))
        end = draw(st.integers(start + 1, 24 * DAYS))
    hours = draw(st.lists(st.integers(start, end - 1), unique=True, max_size=8))
    bars = tuple((hour, draw(st.integers(1, 2))) for hour in hours)
    return Came(source, start, end, bars, draw(st.integers(0, 1)))


def put_all(came: list[Came]) -> Draft:
    draft = Draft(SERIES)
    for one in came:
        draft.put(one.file, one.parsed)
    return draft


def by_trust(came: list[Came]) -> dict[int, tuple[str, int]]:
    """What is kept, bar by bar."""
    kept: dict[int, tuple[str, int]] = {}
    for one in came:
        rank = TRUST.index(one.source)
        if one.source != "rest":
            for hour in range(one.start, one.end):
                if hour in kept and kept[hour][0] != "rest" and TRUST.index(kept[hour][0]) >= rank:
                    del kept[hour]  # this file stands for what such files said before
        for hour, price in one.bars:
            if hour not in kept or (one.source != "rest" and TRUST.index(kept[hour][0]) > rank):
                kept[hour] = (one.source, price)
    return kept


def bars_of(draft: Draft) -> dict[int, tuple[str, int]]:
    rows = draft.rows.to_pylist()
    assert [row["open_time"] for row in rows] == sorted({row["open_time"] for row in rows}), "in order, each once"
    return {(row["open_time"] - BASE) // HOUR: (row["source"], int(row["close"])) for row in rows}


@settings(max_examples=150)
@given(st.lists(answers(), max_size=7))
def test_the_more_trusted_source_is_kept(came: list[Came]) -> None:
    assert bars_of(put_all(came)) == by_trust(came)


@given(st.lists(answers(), max_size=5))
def test_the_order_in_which_days_and_rest_come_does_not_matter_to_the_monthly_file(came: list[Came]) -> None:
    monthly = Came("archive_monthly", 0, 24 * DAYS, ((0, 9), (30, 9), (71, 9)))
    others = [one for one in came if one.source != "archive_monthly"]
    for order in ([monthly, *others], [*others, monthly]):
        found = bars_of(put_all(order))
        assert {hour: found[hour] for hour in (0, 30, 71)} == dict.fromkeys((0, 30, 71), ("archive_monthly", 9))


@given(st.lists(answers(), max_size=7))
def test_files_name_what_the_rows_came_from(came: list[Came]) -> None:
    draft = put_all(came)
    for row in draft.rows.to_pylist():
        speakers = [file for file in draft.files if file.source == row["source"]]
        assert any(file.start <= row["open_time"] < file.end for file in speakers)
    archives = [(file.url, file.source) for file in draft.files if file.source != "rest"]
    assert len(archives) == len(set(archives)), "each address once"


@given(st.lists(answers(), max_size=7))
def test_rest_speaks_for_exactly_what_it_was_asked(came: list[Came]) -> None:
    draft = put_all(came)
    spoken = {
        hour
        for file in draft.files
        if file.source == "rest"
        for hour in range((file.start - BASE) // HOUR, (file.end - BASE) // HOUR)
    }
    assert spoken == {hour for one in came if one.source == "rest" for hour in range(one.start, one.end)}
    windows = sorted(file.window for file in draft.files if file.source == "rest")
    assert all(one.end < other.start for one, other in pairwise(windows)), "adjacent ones joined"


@given(st.lists(answers(), max_size=6))
def test_the_holes_are_the_hours_without_a_bar(came: list[Came]) -> None:
    draft = put_all(came)
    month = Window(BASE, BASE + 24 * DAYS * HOUR)
    holes = {
        (window.start - BASE) // HOUR + step
        for window in draft.provenance(month).holes
        for step in range((window.end - window.start) // HOUR)
    }
    assert holes == set(range(24 * DAYS)) - set(by_trust(came))


@given(st.lists(answers(), max_size=6), st.integers(0, 71), st.integers(1, 72))
def test_bars_of_a_window_are_counted_by_source(came: list[Came], start: int, length: int) -> None:
    counted: dict[str, int] = {}
    for hour, (source, _) in by_trust(came).items():
        if start <= hour < start + length:
            counted[source] = counted.get(source, 0) + 1
    assert put_all(came).rows_by_source(Window(BASE + start * HOUR, BASE + (start + length) * HOUR)) == counted


# --- differences -----------------------------------------------------------------------------------------------

some_bars = st.dictionaries(st.integers(0, 23), st.integers(1, 3), max_size=10)


def _said(found: pa.Table) -> set[tuple[Any, ...]]:
    return {
        (
            (row["open_time"] - BASE) // HOUR,
            row["field"],
            (row["kept_source"], row["kept_value"]),
            (row["other_source"], row["other_value"]),
        )
        for row in found.to_pylist()
    }


@settings(max_examples=150)
@given(some_bars, some_bars, st.sampled_from(TRUST), st.sampled_from(TRUST), st.integers(0, 23), st.integers(0, 24))
def test_differences_are_found_bar_by_bar(
    new: Bars, known: Bars, new_source: str, known_source: str, start: int, end: int
) -> None:
    inside = range(start, end)
    new_wins = TRUST.index(new_source) <= TRUST.index(known_source)
    expected = set()
    for hour in inside:
        sides = [(new_source, new.get(hour)), (known_source, known.get(hour))]
        if sides[0][1] == sides[1][1]:
            continue
        values = [(source, None if price is None else f"{price}.00000000") for source, price in sides]
        if None not in (sides[0][1], sides[1][1]):
            kept, other = values if new_wins else values[::-1]
            expected.add((hour, "close", kept, other))
        else:
            present, absent = (
                (s, "present") if p else (s, None) for s, p in sorted(sides, key=lambda side: not side[1])
            )
            # A later archive file takes back what an earlier one had; everything else that only one has is kept.
            taken_back = present[0] == known_source and new_wins and known_source != "rest" and new.get(hour) is None
            kept, other = (absent, present) if taken_back else (present, absent)
            expected.add((hour, "bar", kept, other))
    window = Window(BASE + start * HOUR, BASE + end * HOUR)
    found = differences(table(new_source, new), table(known_source, known), [window], new_source, known_source)
    assert _said(found) == expected


@given(some_bars, some_bars, st.permutations(TRUST).map(lambda order: order[:2]))
def test_differences_agree_with_what_a_draft_keeps(new: Bars, known: Bars, sources: list[str]) -> None:
    """Both speak for the same day; where they differ, the value that is said to be kept is the one in the draft."""
    draft = put_all([Came(sources[1], 0, 24, tuple(known.items()))])
    draft.disagreements.clear()
    draft.put(Came(sources[0], 0, 24, tuple(new.items())).file, Came(sources[0], 0, 24, tuple(new.items())).parsed)
    kept = bars_of(draft)
    for hour, field, (source, value), _ in _said(pa.concat_tables(draft.disagreements)):
        assert kept.get(hour, (None,))[0] == (source if value else None), (hour, field)


def test_every_field_is_compared_and_told_to_the_last_digit() -> None:
    one, other = table("rest", {0: 1}), table("rest", {0: 1})
    changed = {name: Decimal("1.00000001") for name in DECIMAL_COLUMNS} | {"trades": 2}
    changed |= {"close_time": BASE + timedelta(minutes=39, seconds=41, milliseconds=646)}
    other = pa.Table.from_pylist([other.to_pylist()[0] | changed], schema=KLINE_SCHEMA)
    found = differences(one, other, [Window(BASE, BASE + HOUR)], "archive_daily", "rest")
    told = {row["field"]: (row["kept_value"], row["other_value"]) for row in found.to_pylist()}
    assert told == dict.fromkeys(DECIMAL_COLUMNS, ("1.00000000", "1.00000001")) | {
        "trades": ("1", "2"),
        "close_time": ("2024-07-01T00:59:59.999000+00:00", "2024-07-01T00:39:41.646000+00:00"),
    }
