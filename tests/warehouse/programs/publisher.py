"""Changes bars in the warehouse as a build would, then publishes; to be killed while it does."""

import sys

from ingestion.settings import load_settings
from warehouse.engine import connect, writing
from warehouse.serving import publish


def main(home: str, seed: str) -> None:
    settings = load_settings(home=home)
    with writing(settings), connect(settings) as connection:
        connection.execute("begin")
        connection.execute("update crypto_analytics.market_data_unified set close = close + ?", [int(seed) + 1])
        connection.execute(
            """insert into bookkeeping.unpublished
            select symbol, "interval", date_trunc('month', open_time), min(open_time), ?
            from crypto_analytics.market_data_unified group by all""",
            [f"test-{seed}"],
        )
        connection.execute("commit")
    sys.stdout.write("publishing\n")
    sys.stdout.flush()
    publish(settings)


main(*sys.argv[1:])
