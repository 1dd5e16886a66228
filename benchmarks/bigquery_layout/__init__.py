"""What a warehouse on BigQuery costs, computed; `benchmarks/bigquery_costs.py` is the command."""
