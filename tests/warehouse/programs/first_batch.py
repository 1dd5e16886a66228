"""Warms up, works off what waits on the bus, and prints what had to be imported for it."""

import json
import sys

from ingestion.bus.open import open_bus
from ingestion.bus.port import MICROBATCH
from ingestion.settings import load_settings
from warehouse.streaming import stream
from warehouse.warm_up import warm_up

settings = load_settings()
with open_bus(settings) as bus:
    warm_up(settings)
    known = set(sys.modules)
    stream(settings, bus, lambda report: None, lambda: None if bus.backlog(MICROBATCH).messages else "nothing waits")
sys.stdout.write(json.dumps(sorted(set(sys.modules) - known)))
