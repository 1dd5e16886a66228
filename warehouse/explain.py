"""Where one bar came from, and the steps from its closes to its indicators, computed again by plain recursion."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import sqrt
from typing import Any

from ingestion.errors import UsageError
from ingestion.klines import DAY_MICROS, INTERVAL_MICROS, Series
from ingestion.provenance import SourceFile
from ingestion.settings import Settings
from warehouse.origin import StreamPart, origin
from warehouse.serving import run_query

# As many bars as an exponential average remembers to double precision.
_MEMORY = 1100
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Step:
    """One indicator: how it came about, with numbers; what that gives; what the warehouse has."""

    indicator: str
    how: str
    computed: float | None
    stored: float | None


@dataclass(frozen=True)
class Explanation:
    """Everything known of one bar. `raw` are the landed bars that it was made of, one for the base interval; see
    `Origin` for the others."""

    bar: dict[str, Any]
    raw: list[dict[str, Any]]
    answers: list[SourceFile]
    stream: list[StreamPart]
    disagreements: list[dict[str, Any]]
    steps: list[Step]


def explain(settings: Settings, series: Series, open_time: datetime) -> Explanation:
    """Explain the bar of `series` that opens at `open_time`. Raises UsageError when there is none, and says why."""
    bars = _bars_until(settings, series, open_time)
    if not bars or bars[-1]["open_time"] != open_time:
        raise UsageError(*_why_absent(settings, series, open_time))
    found = origin(settings, series, open_time)
    return Explanation(bars[-1], found.raw, found.answers, found.stream, found.disagreements, _steps(bars))


def _bars_until(settings: Settings, series: Series, open_time: datetime) -> list[dict[str, Any]]:
    length = timedelta(microseconds=INTERVAL_MICROS[series.interval] or 31 * DAY_MICROS)
    # Twice the time that they take without holes; all of it where that is too little.
    for since in (open_time - 2 * _MEMORY * length, _BEGINNING):
        result = run_query(
            settings,
            f"""select * from market_data_unified as bars
            where symbol = ? and bars.interval = ? and open_time <= ? and open_time >= ?
            order by open_time desc limit {_MEMORY}""",
            parameters=[series.symbol, series.interval, open_time, since],
        )
        if len(result.rows) == _MEMORY:
            break
    return [dict(zip(result.columns, row, strict=True)) for row in reversed(result.rows)]


def _why_absent(settings: Settings, series: Series, open_time: datetime) -> tuple[str, str]:
    gap = run_query(
        settings,
        """select verdict, coalesce(outage_title, 'no documented outage'), first_missing_open_time, resumed_at
        from klines_gaps where symbol = ? and first_missing_open_time <= ? and resumed_at > ?""",
        parameters=[series.symbol, open_time, open_time],
    ).rows
    if gap:
        verdict, title, first, resumed = gap[0]
        remedy = "`klinehouse heal` asks for it." if verdict == "missing" else "Nothing is filled in."
        return (
            f"{series} has no bar at {open_time}: it lies in a gap from {first} to {resumed}, {verdict} ({title}).",
            remedy,
        )
    newest = run_query(
        settings,
        "select max(open_time) from market_data_unified as bars "
        "where symbol = ? and bars.interval = ? and open_time >= ?",
        parameters=[series.symbol, series.interval, _BEGINNING],
    ).rows[0][0]
    if newest is not None and open_time > newest:
        return (
            f"{series} ends, so far, with the bar that opens at {newest:%Y-%m-%dT%H:%M:%S}.",
            "`klinehouse status` tells what has come by stream and what waits on the bus.",
        )
    return (
        f"{series} has no bar that opens at {open_time:%Y-%m-%dT%H:%M:%S}.",
        "Bars open on the grid of their interval; `klinehouse coverage` shows what has landed.",
    )


# --- steps -------------------------------------------------------------------------------------------------------


def _steps(bars: Sequence[dict[str, Any]]) -> list[Step]:
    closes = [float(bar["close"]) for bar in bars]
    stored = bars[-1]
    mean, deviation = _mean_and_deviation(closes[-20:])
    gain, loss = _wilder_gain_and_loss(closes, 14)
    fast, slow, signal = _macd(closes)
    ema_50 = _ema(closes, 50)[-1]
    values: list[tuple[str, str, float | None]] = [
        ("sma_20", f"mean of 20 closes, {closes[-20:][0]:.8g} to {closes[-1]:.8g}", mean),
        ("ema_50", f"close * 2/51 + {_ema(closes[:-1], 50)[-1]:.8g} * 49/51", ema_50),
        ("rsi_14", f"100 * {gain:.8g} / ({gain:.8g} + {loss:.8g}), Wilder's mean gain and loss", _rsi(gain, loss)),
        ("macd", f"EMA 12 {fast:.8g} - EMA 26 {slow:.8g}", fast - slow),
        ("macd_signal", "EMA 9 of macd", signal),
        ("bb_upper", f"sma_20 + 2 * {deviation:.8g}, the population deviation of 20 closes", mean + 2 * deviation),
        ("bb_middle", "sma_20", mean),
        ("bb_lower", f"sma_20 - 2 * {deviation:.8g}", mean - 2 * deviation),
    ]
    return [
        Step(
            name,
            how if stored[name] is not None else "still warming up",
            value if stored[name] is not None else None,
            stored[name],
        )
        for name, how, value in values
    ]


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def _ema(values: Sequence[float], n: int, seed_at: int | None = None) -> list[float]:
    """The averages from the seed on: the mean of the n values up to `seed_at`, then the recursion."""
    at = n - 1 if seed_at is None else seed_at
    seed = values[max(at - n + 1, 0) : at + 1]
    averages = [sum(seed) / max(len(seed), 1)]
    for value in values[at + 1 :]:
        averages.append(averages[-1] + 2 / (n + 1) * (value - averages[-1]))
    return averages


def _wilder_gain_and_loss(closes: Sequence[float], n: int) -> tuple[float, float]:
    changes = [after - before for before, after in pairwise(closes)]
    gains, losses = [max(change, 0.0) for change in changes], [max(-change, 0.0) for change in changes]
    means = []
    for values in (gains, losses):
        mean = sum(values[:n]) / n
        for value in values[n:]:
            mean += (value - mean) / n
        means.append(mean)
    return means[0], means[1]


def _rsi(gain: float, loss: float) -> float:
    return 100 * gain / (gain + loss) if gain + loss > 1e-14 else 0.0


def _macd(closes: Sequence[float]) -> tuple[float, float, float]:
    if len(closes) < 26:
        return 0.0, 0.0, 0.0
    fast, slow = _ema(closes, 12, seed_at=25), _ema(closes, 26)
    lines = [a - b for a, b in zip(fast, slow, strict=True)]
    return fast[-1], slow[-1], _ema(lines, 9)[-1]
