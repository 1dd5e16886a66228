"""Reads what is served a number of times, several times on each connection; prints a report as JSON.

A read is whole if bars and another table (each in turn) have one version, the same as all reads of that connection,
and if there are as many bars as the list of files says.
"""

import json
import sys
from itertools import cycle

from ingestion.settings import load_settings
from warehouse.serving import reading

TABLES = ("dim_dates", "dim_hours", "dim_symbols", "klines_gaps", "klines_reconciliation")
READS_OF_A_CONNECTION = 20


def main(home: str, reads: str) -> None:
    settings = load_settings(home=home)
    done, mixed, failed, seen = 0, [], [], set()
    while done < int(reads):
        try:
            with reading(settings) as connection:
                listed = connection.execute(
                    "select sum(rows) from bookkeeping.files where table_name = 'market_data_unified'"
                ).fetchall()[0]
                found = set()
                for table, _ in zip(cycle(TABLES), range(READS_OF_A_CONNECTION), strict=False):
                    done += 1
                    found |= set(
                        connection.execute(
                            f"""select version, count(*) from market_data_unified group by version
                            union all select version, {listed[0]} from {table}"""
                        ).fetchall()
                    )
                if len(found) != 1:
                    mixed.append(sorted(found))
                seen |= found
        except Exception as error:  # noqa: BLE001 - whatever a reader meets is what the test is about
            failed.append(repr(error))
            done += 1
    sys.stdout.write(json.dumps({"reads": done, "mixed": mixed[:3], "failed": failed[:3], "versions": len(seen)}))


main(*sys.argv[1:])
