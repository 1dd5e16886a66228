"""Chaos: the live path while its processes are killed and its connections cut at random, with all faults of the stream.

The simulated exchange runs `speed` times faster than time with bars of 1m. It drops connections, leaves out, repeats,
delays and garbles frames, refuses, and writes down every bar that closed. Meanwhile collector, streaming run and
Dagster's daemon, which starts streaming runs, are killed (SIGKILL), and connections cut, `kills` times in all, in an
order that the seed makes. (The local bus has no process of its own: it is killed in the middle of its work with whoever
uses it.) At the end, after healing, the warehouse is compared with the exchange's own account: `bars_expected,
bars_lost, bars_doubled, bars_different`. `indicator_max_diff` is the largest relative difference of an indicator from a
warehouse built at once from the same raw data.

With `--no-daemon` streaming runs are started by hand, each as soon as the one before it was killed: it shows less, in a
fraction of the time.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import urllib3

from benchmarks.live import END_OF_HISTORY, Home, ended, exchange, fill
from benchmarks.measuring import ROOT, SYMBOLS, klinehouse, measured, options, report
from ingestion.bus.open import open_bus
from ingestion.bus.port import MICROBATCH
from ingestion.settings import Settings, load_settings
from orchestration.instance import prepare_home
from orchestration.live import signs_of_life
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
# What is struck, and how often: Dagster needs a while to be there again.
_COLLECTOR, _STREAM, _DAEMON, _CONNECTION = "collector", "stream", "daemon", "connection"
_WEIGHTS = {_COLLECTOR: 4, _STREAM: 3, _DAEMON: 1, _CONNECTION: 3}
_INDICATORS = ("sma_20", "ema_50", "rsi_14", "macd", "macd_signal", "bb_upper", "bb_middle", "bb_lower")


@dataclass(frozen=True)
class Plan:
    """How long in the exchange's time, how much faster that goes, and how often something is struck."""

    minutes: float = 30.0
    seed: int = 1
    speed: float = 4.0
    kills: int = 40
    series: int = 3
    daemon: bool = True


def chaos(plan: Plan) -> dict[str, object]:
    """Raises SystemExit when something does not come back to life."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        home = Home(Path(folder) / "home", SYMBOLS[: plan.series], "1m")
        truth = Path(folder) / "truth.jsonl"
        fill(home, "2025-12", 0)
        faults = [word for name, value in _FAULTS.items() for word in ("--fault", f"{name}={value}")]
        clock = ("--now", f"{END_OF_HISTORY}-01T00:00", "--speed", str(plan.speed), "--truth", str(truth))
        running.enter_context(exchange(home, 0, *clock, *faults))
        struck = _disturb(home, plan)
        expected = _bars(truth)
        settings = load_settings(
            home=home.path, archive_url=home.environment["KLINEHOUSE_ARCHIVE_URL"], interval=home.interval
        )
        _settle(home, settings, max(open_time for _, open_time in expected))
        return {
            "seed": plan.seed,
            "minutes": plan.minutes,
            "kills": sum(struck.values()),
            **{f"kills_of_{victim}": times for victim, times in struck.items()},
            **_compared(settings, expected),
            **_against_rebuild(settings),
        }


def _disturb(home: Home, plan: Plan) -> dict[str, int]:
    """Keep everything alive for so long, and kill, or cut a connection, again and again; how often each was struck."""
    rng = random.Random(plan.seed)  # noqa: S311 - a seed is to repeat a run
    struck = dict.fromkeys(_WEIGHTS, 0) if plan.daemon else dict.fromkeys((_COLLECTOR, _STREAM, _CONNECTION), 0)
    with Programs(home, daemon=plan.daemon) as programs:
        for _ in range(plan.kills):
            time.sleep(rng.uniform(0.5, 1.5) * plan.minutes * 60 / plan.speed / plan.kills)
            (victim,) = rng.choices(list(struck), [_WEIGHTS[name] for name in struck])
            if victim == _CONNECTION:
                urllib3.request("POST", f"{home.environment['KLINEHOUSE_ARCHIVE_URL']}/simulator/stream/drop")
            elif not programs.kill(victim):
                victim = _COLLECTOR  # a streaming run is still being started
                programs.kill(victim)
            struck[victim] += 1
            programs.revive()
    return struck


class Programs:
    """The processes of the live path. Each has a group of its own, so that what it left behind ends with it."""

    def __init__(self, home: Home, *, daemon: bool) -> None:
        self._home = home
        self._commands = {_COLLECTOR: klinehouse("collect", "--json")}
        if daemon:
            workspace = ("-w", str(ROOT / "workspace.yaml"))
            self._commands[_DAEMON] = [str(Path(sys.executable).with_name("dagster-daemon")), "run", *workspace]
        else:
            self._commands[_STREAM] = klinehouse("stream", "--json")
        self._environment = home.process_environment | {
            "DAGSTER_HOME": str(prepare_home(load_settings(home=home.path))),
            "KLINEHOUSE_STREAMING": "true",
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._groups: list[int] = []

    def __enter__(self) -> Self:
        self.revive()
        return self

    def __exit__(self, *error: object) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for process in self._running.values():
            process.wait()

    def revive(self) -> None:
        """Start what is not running."""
        for name, command in self._commands.items():
            if name not in self._running or self._running[name].poll() is not None:
                self._running[name] = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self._environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
                self._groups.append(self._running[name].pid)

    def kill(self, victim: str) -> bool:
        """SIGKILL to a program, or to the streaming runs that the daemon has started; False when there is none."""
        if victim in self._running:
            self._running[victim].kill()
            self._running[victim].wait()
            return True
        runs = _holders(signs_of_life(load_settings(home=self._home.path)))
        for pid in runs:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(runs)


def _holders(folder: Path) -> set[int]:
    """The processes that have a file in a folder open."""
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # ended meanwhile
            if descriptor.readlink().is_relative_to(folder):
                found.add(int(descriptor.parts[2]))
    return found


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
    plan = Plan()
    parser.add_argument("--minutes", type=float, default=plan.minutes, help="of the exchange's time")
    parser.add_argument("--seed", type=int, default=plan.seed)
    parser.add_argument("--speed", type=float, default=plan.speed, help="of the exchange's clock")
    parser.add_argument("--kills", type=int, default=plan.kills)
    parser.add_argument("--series", type=int, default=plan.series)
    parser.add_argument("--daemon", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    plan = Plan(chosen.minutes, chosen.seed, chosen.speed, chosen.kills, chosen.series, chosen.daemon)
    report("Chaos", chaos(plan), chosen)


if __name__ == "__main__":
    main()
