"""A streaming run: says `warm`, then a line of JSON for each batch, until it is killed or taken over from."""

import json
import sys
from pathlib import Path

from ingestion.bus.open import open_bus
from ingestion.settings import load_settings
from warehouse import dbt
from warehouse.streaming import stream

settings = load_settings(home=Path(sys.argv[1]), symbols=sys.argv[2], interval=sys.argv[3])


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


dbt.warm_up(settings)
say("warm")
with open_bus(settings) as bus:
    stream(settings, bus, lambda report: say(json.dumps({"rows": report.rows})), lambda: None)
