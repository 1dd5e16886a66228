"""From the exchange to the raw zone.

Belongs here: settings, the kline as an Arrow schema, exchange clients, the raw zone, the bus, the simulated exchange.
Does not: Dagster, dbt, SQL models.
"""

import os

# Arrow's own allocator keeps, for each thread, what it once needed: 350 MB after landing six years of three symbols,
# where the system's has 200 at the same speed. Arrow asks for it once, when it is first imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
