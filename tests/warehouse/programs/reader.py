"""Reads the served version without pause until a file appears; prints a report as JSON."""

import json
import sys
from pathlib import Path

from ingestion.settings import load_settings
from warehouse.serving import reading

ONE_VERSION = """
    select
        (select version from bookkeeping.about),
        (select sum(volume) from crypto_analytics.market_data_unified where "interval" = '1h'),
        (select sum(volume) from crypto_analytics.market_data_unified where "interval" = '1d'),
        (select count(*) from crypto_analytics.market_data_unified where "interval" = '1h'),
        (select sum(rows) from bookkeeping.files where "interval" = '1h')
"""


def main(home: str, stop: str) -> None:
    settings = load_settings(home=home)
    reads, mixed, failed, versions = 0, 0, [], set()
    while not Path(stop).exists():
        try:
            with reading(settings) as connection:
                for _ in range(2):
                    row = connection.execute(ONE_VERSION).fetchone()
                    assert row is not None
                    version, hourly, daily, bars, listed = row
                    reads += 1
                    versions.add(version)
                    mixed += abs(hourly - daily) > 1e-6 * hourly or bars != listed
        except Exception as error:  # noqa: BLE001 - whatever a reader meets is what the test is about
            failed.append(repr(error))
    sys.stdout.write(json.dumps({"reads": reads, "mixed": mixed, "failed": failed, "versions": sorted(versions)}))


main(*sys.argv[1:])
