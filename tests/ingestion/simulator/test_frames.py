"""Frames of the stream, letter by letter."""

import json
from pathlib import Path

import pytest
from websockets.frames import Frame
from websockets.streams import StreamReader

from ingestion.klines import Series
from ingestion.simulator.frames import KlineFrame, decimal, stream_name, values
from ingestion.simulator.tape import Kline

FTM = Series("FTMUSDT", "1m")
KLINE = Kline(
    open_time=1_628_952_360_000_000,
    close_time=1_628_952_419_999_999,
    open=34_064_000,
    high=34_070_000,
    low=33_934_000,
    close=33_964_000,
    volume=20_922_430_000_000,
    quote_volume=7_105_851_891_400,
    trades=82,
    taker_buy_base_volume=15_613_330_000_000,
    taker_buy_quote_volume=5_301_375_454_200,
    first_trade=38_248_833,
    last_trade=38_248_914,
)


def text_of(made: bytes) -> str:
    """The text of a whole, unmasked frame."""
    reader = StreamReader()
    reader.feed_data(made)
    parser = Frame.parse(reader.read_exact, mask=False)
    try:
        next(parser)
    except StopIteration as done:
        return bytes(done.value.data).decode()
    raise AssertionError("The frame is not whole.")


def test_a_frame_is_the_recorded_one_letter_by_letter(shared_data: Path) -> None:
    recorded = (shared_data / "stream/kline-frames.f60e8395.jsonl").read_text().splitlines()
    recorded += (shared_data / "stream/kline-frames.cb63e8da.jsonl").read_text().splitlines()
    for line in recorded:
        kline = json.loads(line)["data"]["k"]
        frame = KlineFrame(
            Series(kline["s"], kline["i"]),
            Kline(
                kline["t"] * 1000,
                kline["T"] * 1000 + 999,
                *(units(kline[name]) for name in "ohlcvq"),
                kline["n"],
                units(kline["V"]),
                units(kline["Q"]),
                kline["f"],
                kline["L"],
            ),
            json.loads(line)["data"]["E"] * 1000,
            kline["x"],
        )
        assert text_of(frame.bytes_for(combined=True, micro=False)) == line


def units(text: str) -> int:
    return int(text.replace(".", ""))


@pytest.mark.parametrize(("micro", "last"), [(False, 1_628_952_419_999), (True, 1_628_952_419_999_999)])
def test_times_have_the_unit_that_is_asked_for(micro: bool, last: int) -> None:
    made = KlineFrame(FTM, KLINE, KLINE.close_time + 1, closed=True).bytes_for(combined=False, micro=micro)
    event = json.loads(text_of(made))
    assert (event["E"], event["k"]["T"]) == (last + 1, last)


def test_a_form_is_made_once() -> None:
    frame = KlineFrame(FTM, KLINE, KLINE.close_time + 1, closed=True)
    assert frame.bytes_for(combined=True, micro=False) is frame.bytes_for(combined=True, micro=False)


def test_the_stream_of_a_series_is_in_lower_case() -> None:
    assert stream_name(FTM) == "ftmusdt@kline_1m"


@pytest.mark.parametrize(("amount", "text"), [(0, "0.00000000"), (1, "0.00000001"), (123 * 10**8, "123.00000000")])
def test_amounts_have_eight_digits(amount: int, text: str) -> None:
    assert decimal(amount) == text


def test_the_values_of_a_bar_are_those_of_the_archive() -> None:
    assert values(KLINE) == [
        *("1628952360000000", "0.34064000", "0.34070000", "0.33934000", "0.33964000", "209224.30000000"),
        *("1628952419999999", "71058.51891400", "82", "156133.30000000", "53013.75454200"),
    ]
