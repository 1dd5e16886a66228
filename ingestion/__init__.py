"""From the exchange to the raw zone.

Belongs here: settings, the kline as an Arrow schema, exchange clients, the raw zone, the simulated exchange.
Does not: Dagster, dbt, SQL models.
"""
