"""Dagster: assets, partitions, checks, schedules. Thin; each decision is a pure function with a test.

Does not belong here: parsing, HTTP, file layouts, SQL that belongs in a model.
"""
