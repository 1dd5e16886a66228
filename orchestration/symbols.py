"""The asset `raw_symbols`: what the exchange trades, asked once a month."""

from collections import Counter

import dagster as dg

from ingestion.settings import Settings
from ingestion.symbols import SYMBOL_SCHEMA, land_symbols
from orchestration.history import OWNERS, column_schema

RAW_SYMBOLS = dg.AssetKey("raw_symbols")


def raw_symbols_asset(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=RAW_SYMBOLS,
        group_name="ingestion",
        owners=OWNERS,
        kinds={"python", "parquet"},
        description=(
            "Every symbol of the exchange with its status, assets, tick and lot size, kept each time that it changed. "
            "Ended symbols stay, with status BREAK."
        ),
        metadata={"dagster/column_schema": column_schema(SYMBOL_SCHEMA), "dagster/uri": f"{settings.raw_root}/symbols"},
    )
    def raw_symbols() -> dg.MaterializeResult[None]:
        rows = land_symbols(settings)
        by_status = Counter(rows["status"].to_pylist())
        return dg.MaterializeResult(metadata={"dagster/row_count": rows.num_rows, "by_status": dict(by_status)})

    return raw_symbols
