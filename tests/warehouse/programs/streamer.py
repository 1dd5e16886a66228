"""A streaming run: says `warm`, then a line of JSON for each batch, until it is killed or taken over from."""

import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from ingestion.bus.local import LocalBus
from ingestion.bus.port import TOPOLOGY
from ingestion.settings import load_settings
from warehouse import dbt
from warehouse.streaming import stream

settings = load_settings(home=Path(sys.argv[1]), symbols=sys.argv[2], interval=sys.argv[3])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


dbt.warm_up(settings)
say("warm")
# What a killed run had leased comes again soon.
topology = [replace(one, ack_deadline=timedelta(seconds=2), min_backoff=timedelta(0)) for one in TOPOLOGY]
with LocalBus(settings.bus_path, topology) as bus:
    stream(settings, bus, lambda report: say(json.dumps({"rows": report.rows})), lambda: None)
