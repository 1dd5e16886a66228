"""Consumes the micro-batches of a queue until it is empty: writes each batch down, then acknowledges it.

Prints after each batch how many lines have been written down in all.
"""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from ingestion.bus.local import LocalBus
from ingestion.bus.port import MICROBATCH, TOPOLOGY

# What a killed consumer had leased is there again after a second.
SHORT = tuple(
    replace(one, ack_deadline=timedelta(seconds=1), min_backoff=timedelta(0), max_backoff=timedelta(0))
    for one in TOPOLOGY
)


def main() -> None:
    path, written = map(Path, sys.argv[1:])
    with LocalBus(path, SHORT) as bus, written.open("a") as lines:
        count = len(written.read_text().split())
        while bus.backlog(MICROBATCH).messages:
            received = bus.pull(MICROBATCH, max_messages=100, max_bytes=1 << 20, wait=1)
            lines.writelines(f"{one.message.data.decode()}\n" for one in received)
            lines.flush()
            bus.acknowledge(MICROBATCH, [one.ack_id for one in received])
            count += len(received)
            sys.stdout.write(f"{count}\n")
            sys.stdout.flush()


main()
