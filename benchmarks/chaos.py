"""Chaos: the live path while its processes are killed and its connections cut at random, with all faults of the stream.

The simulated exchange runs `speed` times faster than time with bars of 1m. It drops connections, leaves out, repeats,
delays and garbles frames, refuses, and writes down every bar that closed. Meanwhile collector and streaming run are
killed (SIGKILL) and started again, and connections cut, `kills` times, in an order that the seed makes. At the end,
after healing, the warehouse is compared with the exchange's own account: `bars_expected, bars_lost, bars_doubled,
bars_different`. `indicator_max_diff` is the largest relative difference of an indicator from a warehouse built at once
from the same raw data.
"""

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import urllib3

from benchmarks.live import END_OF_HISTORY, Home, ended, exchange, fill
from benchmarks.measuring import SYMBOLS, klinehouse, measured, options, report
from ingestion.bus.open import open_bus
from ingestion.bus.port import MICROBATCH
from ingestion.settings import Settings, load_settings
from warehouse.build import build, require_window
from warehouse.engine import connect

_FAULTS = {
    "stream_drop": 0.002,
    "stream_missing_close": 0.05,
    "stream_late_close": 0.05,
    "stream_duplicates": 0.05,
    "stream_garbage": 0.01,
    "stream_refused": 0.1,
    "errors": 0.05,
}
_PROGRAMS = (("collect", "--json"), ("stream", "--json"))
_INDICATORS = ("sma_20", "ema_50", "rsi_14", "macd", "macd_signal", "bb_upper", "bb_middle", "bb_lower")


def chaos(minutes: float, seed: int, speed: float, kills: int) -> dict[str, object]:
    """Raises SystemExit when something does not come back to life."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        home = Home(Path(folder) / "home", SYMBOLS, "1m")
        truth = Path(folder) / "truth.jsonl"
        fill(home, "2025-12", 0)
        faults = [word for name, value in _FAULTS.items() for word in ("--fault", f"{name}={value}")]
        clock = ("--now", f"{END_OF_HISTORY}-01T00:00", "--speed", str(speed), "--truth", str(truth))
        running.enter_context(exchange(home, 0, *clock, *faults))
        done = _disturb(home, minutes * 60 / speed, random.Random(seed), kills)  # noqa: S311 - a seed is to repeat a run
        expected = _bars(truth)
        settings = load_settings(
            home=home.path, archive_url=home.environment["KLINEHOUSE_ARCHIVE_URL"], interval=home.interval
        )
        _settle(home, settings, max(open_time for _, open_time in expected))
        return {"seed": seed, "minutes": minutes, **done, **_compared(settings, expected), **_against_rebuild(settings)}


def _disturb(home: Home, seconds: float, rng: random.Random, kills: int) -> dict[str, int]:
    """Keep both programs alive for so long, and kill, or cut a connection, again and again."""
    done = {"kills": 0, "cuts": 0}
    programs = {arguments: home.start(*arguments) for arguments in _PROGRAMS}
    for _ in range(kills):
        time.sleep(rng.uniform(0.5, 1.5) * seconds / kills)
        victim = rng.choice([*_PROGRAMS, None])
        if victim is None:
            urllib3.request("POST", f"{home.environment['KLINEHOUSE_ARCHIVE_URL']}/simulator/stream/drop")
            done["cuts"] += 1
        else:
            programs[victim].kill()
            programs[victim].wait()
            done["kills"] += 1
        for arguments, process in programs.items():
            if process.poll() is not None:
                programs[arguments] = home.start(*arguments)
    for process in programs.values():
        process.kill()
        process.wait()
    return done


def _bars(truth: Path) -> dict[tuple[str, int], list[str]]:
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    return {(line["symbol"], line["open_time"]): line["values"] for line in lines}


def _settle(home: Home, settings: Settings, newest: int) -> None:
    """Undisturbed at last: until everything that closed has been collected and made visible, and gaps are healed."""
    with ended(home.start("collect", "--json")), ended(home.start("stream", "--json")) as streaming:
        deadline = time.monotonic() + 180
        while _newest_visible(settings) < newest or _waits(settings):
            if time.monotonic() > deadline or streaming.poll() is not None:
                raise SystemExit("The live path does not come to rest.")
            time.sleep(1)
    _heal(home)


def _waits(settings: Settings) -> bool:
    with open_bus(settings) as bus:
        return bus.backlog(MICROBATCH).messages > 0


def _newest_visible(settings: Settings) -> int:
    from warehouse.serving import run_query

    sql = """select min(newest) from (select epoch_us(max(open_time)) as newest from market_data_unified
        where "interval" = ? group by symbol)"""
    return int(run_query(settings, sql, parameters=[settings.interval]).rows[0][0])


def _heal(home: Home) -> None:
    measured(klinehouse("build", "--json"), home.environment)
    command = klinehouse("heal", "--json", "--start", END_OF_HISTORY)
    # Exit code 5 says that something went into quarantine on the way, which faults are for.
    subprocess.run(command, env=home.process_environment, stdout=subprocess.DEVNULL, check=False)


def _compared(settings: Settings, expected: dict[tuple[str, int], list[str]]) -> dict[str, int]:
    sql = """select symbol, epoch_us(open_time), open, high, low, close, volume, epoch_us(close_time) // 1000,
            quote_volume, trades, taker_buy_base_volume, taker_buy_quote_volume
        from crypto_analytics.market_data_unified where "interval" = ?"""
    with connect(settings) as connection:
        rows = connection.execute(sql, [settings.interval]).fetchall()
    found: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for symbol, open_time, *values in rows:
        found.setdefault((symbol, open_time), []).append(tuple(values))
    return {
        "bars_expected": len(expected),
        "bars_lost": sum(key not in found for key in expected),
        "bars_doubled": sum(len(values) - 1 for values in found.values()),
        "bars_different": sum(
            _as_row(values) not in found.get(key, [_as_row(values)]) for key, values in expected.items()
        ),
    }


def _as_row(values: list[str]) -> tuple[Any, ...]:
    _, *prices, close_time, quote, trades, base_bought, quote_bought = values[:11]
    return (
        *map(float, prices),
        int(close_time) // 1000,
        float(quote),
        int(trades),
        float(base_bought),
        float(quote_bought),
    )


def _against_rebuild(settings: Settings) -> dict[str, float]:
    other = settings.model_copy(update={"home": settings.home.with_name("rebuilt")})
    shutil.copytree(settings.home / "raw", other.home / "raw")
    build(other, require_window(other))
    grown, rebuilt = _indicators(settings), _indicators(other)
    if grown.num_rows != rebuilt.num_rows:
        raise SystemExit(f"{grown.num_rows} bars have grown, {rebuilt.num_rows} are built at once.")
    worst = 0.0
    for name in _INDICATORS:
        for left, right in zip(grown[name].to_pylist(), rebuilt[name].to_pylist(), strict=True):
            if (left is None) != (right is None):
                raise SystemExit(f"{name} is {left} where it is {right} when built at once.")
            if left is not None:
                worst = max(worst, abs(left - right) / max(abs(right), 1.0))
    return {"indicator_max_diff": worst}


def _indicators(settings: Settings) -> pa.Table:
    sql = f"""select {", ".join(_INDICATORS)} from crypto_analytics.market_data_unified
        order by symbol, "interval", open_time"""
    with connect(settings) as connection:
        return connection.sql(sql).to_arrow_table()


def main() -> None:
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=30.0, help="of the exchange's time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=4.0, help="of the exchange's clock")
    parser.add_argument("--kills", type=int, default=40)
    chosen = parser.parse_args()
    report("Chaos", chaos(chosen.minutes, chosen.seed, chosen.speed, chosen.kills), chosen)


if __name__ == "__main__":
    main()
