"""Python around the warehouse: connections, running dbt, publishing to serving.

Does not belong here: Dagster, HTTP, SQL that belongs in a model.
"""
