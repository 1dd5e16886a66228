"""The warehouse on Google BigQuery: what differs from DuckDB. The models are the same.

`crypto_raw` holds what has landed as native tables; readers ask `crypto_analytics` itself, there is no serving folder.
"""
