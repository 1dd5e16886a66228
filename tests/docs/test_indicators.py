"""What the pages of docs/indicators say is what TA-Lib and the project's own SQL compute."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.homes import bars, build_all, home, put, random_walk
from support.oracles import INDICATORS, Floats, floats, talib_indicators

from benchmarks.indicators import Differences, write
from ingestion.klines import Series

FOLDER = Path(__file__).parents[2] / "docs" / "indicators"
START = datetime(2019, 1, 1, tzinfo=UTC)
GOLDEN, WHOLE, CUT = Series("BTCUSDT", "1d"), Series("ETHUSDT", "1d"), Series("SOLUSDT", "1d")
GOLDEN_BARS, WHOLE_BARS, CUT_AT = 60, 1300, 500


@dataclass(frozen=True)
class Page:
    """A page of an indicator, read: its golden closes and values (None for NULL) by bar and column."""

    name: str
    text: str

    @property
    def closes(self) -> list[str]:
        (block,) = re.findall(r"^```\n([\d. \n]+)```$", self._section("Golden values"), re.MULTILINE)
        return block.split()

    @property
    def golden(self) -> dict[int, dict[str, float | None]]:
        header, _, *rows = re.findall(r"^\|(.*)\|$", self._section("Golden values"), re.MULTILINE)
        columns = re.findall(r"`(\w+)`", header)
        cells = [[cell.strip() for cell in row.split("|")] for row in rows]
        return {
            int(bar): {
                name: None if value == "NULL" else float(value) for name, value in zip(columns, values, strict=True)
            }
            for bar, *values in cells
        }

    def warm_up(self, column: str) -> tuple[int, int]:
        """Where the page says that a column has its first value, and where it has settled."""
        title = f"`{column}`: warm-up" if f"## `{column}`: warm-up" in self.text else "Warm-up"
        first, settled = re.findall(r"^- (?:First value|Settled): bar (\d+)", self._section(title), re.MULTILINE)
        return int(first), int(settled)

    def _section(self, title: str) -> str:
        (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        return str(found)


def index() -> dict[str, tuple[Page, int, int]]:
    """The table of the index: by column its page, first value and settled bar."""
    rows = re.findall(
        r"^\| `(\w+)` \| \[.*?\]\((\w+)\.md\) \| (\d+) \| (\d+) \|", (FOLDER / "README.md").read_text(), re.MULTILINE
    )
    return {
        column: (Page(page, (FOLDER / f"{page}.md").read_text()), int(first), int(settled))
        for column, page, first, settled in rows
    }


INDEX = index()
PAGES = {page.name: page for page, _, _ in INDEX.values()}
Computed = Mapping[Series, Mapping[str, Floats]]


def golden_closes() -> list[Decimal]:
    """The closes of every page, by the formula that the pages give; a shorter page takes the first of them."""
    return [100 + Decimal(37 * i * i % 997) / 100 for i in range(GOLDEN_BARS)]


@pytest.fixture(scope="module")
def klines() -> dict[Series, pa.Table]:
    """The golden series, a walk, and the same walk with its first bars missing under another symbol."""
    golden = random_walk(GOLDEN, START, GOLDEN_BARS)
    rows = golden.to_pylist()
    for row, close in zip(rows, golden_closes(), strict=True):
        row |= dict.fromkeys(("open", "high", "low", "close"), close)
    whole = random_walk(WHOLE, START, WHOLE_BARS, seed=2)
    cut = whole.slice(CUT_AT)
    symbols = pa.array([CUT.symbol] * len(cut), whole.schema.field("symbol").type)
    return {
        GOLDEN: pa.Table.from_pylist(rows, schema=golden.schema),
        WHOLE: whole,
        CUT: cut.set_column(0, whole.schema.field("symbol"), symbols),
    }


@pytest.fixture(scope="module")
def by_sql(klines: dict[Series, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> Computed:
    settings = home(tmp_path_factory.mktemp("home"), interval="1d")
    for series, table in klines.items():
        put(settings, series, table)
    build_all(settings)
    table = bars(settings)
    return {
        series: {name: floats(table.filter(pc.equal(table["symbol"], series.symbol))[name]) for name in INDICATORS}
        for series in klines
    }


@pytest.fixture(scope="module")
def by_talib(klines: dict[Series, pa.Table]) -> Computed:
    return {
        series: talib_indicators(np.array([float(close) for close in table["close"].to_pylist()]))
        for series, table in klines.items()
    }


@pytest.fixture(scope="module", params=["by_talib", "by_sql"])
def computed(request: pytest.FixtureRequest) -> Computed:
    found: Computed = request.getfixturevalue(request.param)
    return found


def test_the_index_names_every_indicator_and_every_page() -> None:
    assert tuple(INDEX) == INDICATORS
    assert {f"{name}.md" for name in PAGES} | {"README.md"} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("column", INDICATORS)
def test_an_indicator_stands_in_the_heading_of_its_page(column: str) -> None:
    page, _, _ = INDEX[column]
    assert f"`{column}`" in page.text.splitlines()[0]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_golden_closes_are_what_their_formula_gives(page: Page) -> None:
    closes = [Decimal(text) for text in page.closes]
    assert closes == golden_closes()[: len(closes)]
    assert "`100 + (37 * i * i mod 997) / 100`" in page.text


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_golden_values_are_what_is_computed(page: Page, computed: Computed) -> None:
    """The closes after a page's last one do not matter to it: no indicator looks ahead."""
    for bar, values in page.golden.items():
        assert bar < len(page.closes)
        assert tuple(values) == tuple(column for column in INDICATORS if INDEX[column][0] == page)
        for column, value in values.items():
            found = computed[GOLDEN][column][bar]
            assert math.isnan(found) if value is None else abs(found - value) <= 1e-10, (column, bar, found)


@pytest.mark.parametrize("column", INDICATORS)
def test_the_first_value_is_where_the_page_and_the_index_say(column: str, computed: Computed) -> None:
    page, first, settled = INDEX[column]
    assert page.warm_up(column) == (first, settled)
    for values in computed.values():
        assert np.flatnonzero(~np.isnan(values[column]))[0] == first
    assert page.golden[first - 1][column] is None
    assert page.golden[first][column] is not None


def until(share: float, alpha: float, gain: float = 1.0) -> int:
    """The first n with gain * (1 - alpha)^n <= share."""
    return math.ceil(math.log(share / gain) / math.log1p(-alpha))


def test_settled_bars_follow_from_the_decay_of_the_averages() -> None:
    slow = 2 / 27
    assert {column: settled for column, (_, _, settled) in INDEX.items()} == {
        "sma_20": 19,
        "ema_50": 49 + until(1e-9, 2 / 51),
        "rsi_14": 14 + until(1e-9, 1 / 14, gain=10),
        "macd": 25 + until(1e-12, slow),
        "macd_signal": 25 + until(1e-12, slow, gain=0.2 / (1 - 0.8 / (1 - slow))),
        "bb_upper": 19,
        "bb_middle": 19,
        "bb_lower": 19,
    }


def unlike(column: str, left: Floats, right: Floats, close: Floats) -> list[int]:
    """Bars in which two columns differ by more than the pages call equal."""
    tolerance = 1e-12 * close if column.startswith("macd") else 1e-9 * np.abs(right)
    return [int(bar) for bar in np.flatnonzero(~(np.abs(left - right) <= tolerance))]


@pytest.mark.parametrize("column", INDICATORS)
def test_from_the_settled_bar_on_the_start_of_history_does_not_matter(
    column: str, computed: Computed, klines: dict[Series, pa.Table]
) -> None:
    _, first, settled = INDEX[column]
    close = np.array([float(value) for value in klines[CUT]["close"].to_pylist()])
    assert len(close) > settled + 100
    off = unlike(column, computed[CUT][column], computed[WHOLE][column][CUT_AT:], close)
    if first == settled:
        assert off == list(range(first))
    else:
        # Not idle words: half the way it still does matter.
        assert (first + settled) // 2 < max(off) < settled


@pytest.mark.parametrize("column", ["ema_50", "macd", "macd_signal"])
@pytest.mark.parametrize("level", [0.01, 5.0])
def test_a_history_at_another_price_is_forgotten_by_the_settled_bar(column: str, level: float) -> None:
    """The seeds differ by up to half the price: more than a walk does, and less than the pages allow for."""
    close = floats(random_walk(CUT, START, WHOLE_BARS - CUT_AT, seed=3)["close"])
    history = np.concatenate((level * close[::-1], close))
    left, right = talib_indicators(close)[column], talib_indicators(history)[column][len(close) :]
    off = unlike(column, left, right, close)
    assert max(off) < INDEX[column][2]


@pytest.mark.parametrize("data", ["simulated", "recorded"])
@pytest.mark.parametrize("column", INDICATORS)
def test_published_differences_are_measured_and_within_the_bound(column: str, data: str) -> None:
    page, _, _ = INDEX[column]
    line = rf"^- `{column}`, {data}: ([\d.e+-]+) absolute, ([\d.e+-]+) relative, ([\d,]+) bars$"
    ((_, relative, counted),) = re.findall(line, page.text, re.MULTILINE)
    assert float(relative) <= 1e-9
    assert int(counted.replace(",", "")) > 100_000


def test_new_figures_replace_the_old_ones_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "macd.md"
    page.write_text("- `macd`, simulated: old\n- `macd`, recorded: kept\n- `macd_signal`, simulated: kept\n")
    monkeypatch.setattr("benchmarks.indicators.PAGES", tmp_path)
    write({"simulated": {"macd": "new"}})
    assert page.read_text() == "- `macd`, simulated: new\n- `macd`, recorded: kept\n- `macd_signal`, simulated: kept\n"


def test_a_difference_is_the_largest_of_all_series() -> None:
    close = floats(random_walk(GOLDEN, START, 100)["close"])
    exact = talib_indicators(close)
    differences = Differences()
    for error in (0.0, 0.5, 0.25):
        differences.add(close, exact | {"rsi_14": exact["rsi_14"] + error, "macd": exact["macd"] - error})
    assert differences.bars == 300
    assert differences.absolute["sma_20"] == differences.relative["sma_20"] == 0
    assert differences.absolute["rsi_14"] == pytest.approx(0.5)
    assert differences.relative["rsi_14"] == pytest.approx(0.5 / np.nanmin(exact["rsi_14"]))
    assert differences.relative["macd"] == pytest.approx(0.5 / close[33:].min())


def test_a_value_where_talib_has_none_ends_the_measurement() -> None:
    close = floats(random_walk(GOLDEN, START, 100)["close"])
    with pytest.raises(SystemExit, match="ema_50"):
        Differences().add(close, talib_indicators(close) | {"ema_50": close})
