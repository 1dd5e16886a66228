"""Writes docs/data-dictionary.md from the dbt project: `python docs/data_dictionary.py`."""

import json
from pathlib import Path
from typing import Any

from ingestion.settings import load_settings
from warehouse.dbt import manifest_path

TARGET = Path(__file__).with_name("data-dictionary.md")
HEADER = """# Data dictionary

Written from the dbt project by `python docs/data_dictionary.py`; change the descriptions there. Readers find these
tables in `serving/klinehouse.duckdb`, schema `crypto_analytics`. Times are UTC instants; windows are half-open.
"""


def dictionary(manifest: dict[str, Any]) -> str:
    marts = [node for node in manifest["nodes"].values() if node["fqn"][1:2] == ["marts"] and "columns" in node]
    tables = sorted((node for node in marts if node["resource_type"] == "model"), key=lambda node: str(node["name"]))
    # The main table, what is known of its health, the dimensions.
    groups = ("market_", "klines_", "dim_")
    return HEADER + "".join(_table(node) for group in groups for node in tables if node["name"].startswith(group))


def _table(node: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| `{column['name']}` | {column['data_type']} | {' '.join(column['description'].split())} |"
        for column in node["columns"].values()
    )
    description = " ".join(node["description"].split())
    return f"\n## {node['name']}\n\n{description}\n\n| column | type | meaning |\n|---|---|---|\n{rows}\n"


if __name__ == "__main__":
    TARGET.write_text(dictionary(json.loads(manifest_path(load_settings()).read_text())))
