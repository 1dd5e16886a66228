"""The local bus: one process publishes batches of 100, another pulls 500 at a time and acknowledges them.

`messages_per_s` is from the first publish to the last acknowledgement, 20,000 messages of a kline's size, each of them
kept for a second subscription too. `waiting_messages_per_s` is the same while 100,000 messages wait in that one.
`notice_ms` is the median from the call of `publish` in one process to the return of a `pull` that waits in another.

What bounds it: SQLite's indexes (three for each copy), and one fsync of the log for each batch, pull and
acknowledgement.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import ROOT, options, report
from ingestion.bus.local import LocalBus
from ingestion.bus.port import KLINES, MICROBATCH, Message

MESSAGES, BATCH, PULL, WAITING, NOTICES = 20_000, 100, 500, 100_000, 100
_BODY = Message(bytes(450), {"symbol": "BTCUSDT", "interval": "5m", "schema": "1", "kind": "kline"})
_PUBLISH, _ECHO = "publish", "echo"


def bus() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bus.sqlite"
        empty = _throughput(path)
        with LocalBus(path) as opened:
            for _ in range((WAITING - MESSAGES) // 1000):
                opened.publish(KLINES, [_BODY] * 1000)
            while _consume(opened):
                pass
        return {
            "messages": MESSAGES,
            "messages_per_s": empty,
            "waiting_messages_per_s": _throughput(path),
            "notice_ms": _notice(Path(folder) / "notice.sqlite"),
        }


def _throughput(path: Path) -> int:
    with LocalBus(path) as opened, _beside(_PUBLISH, path):
        begin, done = time.perf_counter(), 0
        while done < MESSAGES:
            done += _consume(opened)
        return round(MESSAGES / (time.perf_counter() - begin))


def _consume(opened: LocalBus) -> int:
    received = opened.pull(MICROBATCH, max_messages=PULL, max_bytes=1 << 30, wait=0.1)
    opened.acknowledge(MICROBATCH, [one.ack_id for one in received])
    return len(received)


def _notice(path: Path) -> float:
    """The other process publishes the time at which it publishes."""
    waits: list[float] = []
    with LocalBus(path) as opened, _beside(_ECHO, path):
        while len(waits) < NOTICES:
            received = opened.pull(MICROBATCH, max_messages=1, max_bytes=1 << 30, wait=1)
            now = time.time()
            waits += [now - float(one.message.data) for one in received]
            opened.acknowledge(MICROBATCH, [one.ack_id for one in received])
    return round(statistics.median(waits) * 1000, 1)


@contextmanager
def _beside(what: str, path: Path) -> Iterator[None]:
    """Another process that publishes, started and ready."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.bus", what, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("no pipes")
        process.stdout.readline()
        process.stdin.close()
        yield


def _other(what: str, path: Path) -> None:
    with LocalBus(path) as opened:
        print("ready", flush=True)
        sys.stdin.read()
        if what == _PUBLISH:
            for _ in range(MESSAGES // BATCH):
                opened.publish(KLINES, [_BODY] * BATCH)
            return
        for _ in range(NOTICES):
            time.sleep(0.02)
            opened.publish(KLINES, [Message(b"%.6f" % time.time())])


def main() -> None:
    if sys.argv[1:2] in ([_PUBLISH], [_ECHO]):
        _other(sys.argv[1], Path(sys.argv[2]))
        return
    parser = options(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    report("The local bus", bus(), parser.parse_args())


if __name__ == "__main__":
    main()
