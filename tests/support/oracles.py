"""Independent answers: TA-Lib for indicators, numpy for comparing tables."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import talib

INDICATORS = ("sma_20", "ema_50", "rsi_14", "macd", "macd_signal", "bb_upper", "bb_middle", "bb_lower")
Floats = npt.NDArray[np.float64]


def talib_indicators(close: Floats) -> dict[str, Floats]:
    """The eight indicators of one series by TA-Lib, NaN while they warm up."""
    macd, signal, _ = talib.MACD(close, 12, 26, 9)
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    return {
        "sma_20": talib.SMA(close, 20),
        "ema_50": talib.EMA(close, 50),
        "rsi_14": talib.RSI(close, 14),
        "macd": macd,
        "macd_signal": signal,
        "bb_upper": upper,
        "bb_middle": middle,
        "bb_lower": lower,
    }


def floats(column: pa.ChunkedArray) -> Floats:
    """A column of doubles with NaN for NULL."""
    return np.asarray(column.to_pandas(), dtype=np.float64)


def assert_indicators_equal_talib(bars: pa.Table) -> None:
    """One series against TA-Lib: NULL in the same rows, and 1e-9 relative everywhere.

    MACD is a difference of prices and crosses zero; there, a millionth of a millionth of the price counts as equal.
    """
    close = floats(bars["close"])
    for name, expected in talib_indicators(close).items():
        actual = floats(bars[name])
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=f"NULLs of {name}")
        tolerance = 1e-9 * np.abs(expected) + (1e-12 * close if name.startswith("macd") else 0)
        off = np.flatnonzero(~(np.abs(actual - expected) <= tolerance) & ~np.isnan(expected))
        assert not len(off), f"{name} differs in {len(off)} rows, first {off[0]}: {actual[off[0]]} {expected[off[0]]}"


def assert_tables_equal(actual: pa.Table, expected: pa.Table) -> None:
    """Equal keys and columns; doubles to 1e-9 relative (and to 1e-12 of the price where they cross zero)."""
    assert actual.column_names == expected.column_names
    assert actual.num_rows == expected.num_rows
    scale = floats(expected["close"])
    for name in expected.column_names:
        if pa.types.is_floating(expected.schema.field(name).type):
            left, right = floats(actual[name]), floats(expected[name])
            np.testing.assert_array_equal(np.isnan(left), np.isnan(right), err_msg=f"NULLs of {name}")
            close = np.abs(left - right) <= 1e-9 * np.abs(right) + (1e-12 * scale if name.startswith("macd") else 0)
            assert np.all(close | np.isnan(right)), name
        else:
            assert actual[name].to_pylist() == expected[name].to_pylist(), name
