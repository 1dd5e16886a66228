"""What readers see: the asset `serving`, published from the warehouse file; on BigQuery they read the warehouse."""

import dagster as dg

from ingestion.settings import Settings
from orchestration.history import OWNERS
from orchestration.warehouse_assets import BARS, FOLLOW_INPUTS, LIVE, POOL
from warehouse.served_files import DIMENSIONS, HEALTH
from warehouse.serving import is_simulated, publish
from warehouse.views import VIEW_FILE

SERVING = dg.AssetKey("serving")


def read_asset(settings: Settings) -> dg.AssetKey:
    """The asset that readers see the bars in."""
    return SERVING if settings.target == "duckdb" else BARS


def read_table(settings: Settings) -> str:
    """The table in which readers see a bar first."""
    return BARS.to_user_string() if settings.target == "duckdb" else LIVE


def is_published(settings: Settings) -> bool:
    """Whether readers see anything yet."""
    if settings.target == "duckdb":
        return (settings.serving_dir / VIEW_FILE).exists()
    from warehouse.bigquery.client import ANALYTICS, opened

    with opened(settings) as warehouse:
        return warehouse.has_table(ANALYTICS, LIVE)


def serving_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    return [_serving(settings)] if settings.target == "duckdb" else []


def _serving(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=SERVING,
        deps=[BARS, *(dg.AssetKey(name) for name in (*DIMENSIONS, *HEALTH))],
        group_name="serving",
        owners=OWNERS,
        kinds={"duckdb", "parquet"},
        description=(
            "Versioned Parquet files and `serving/klinehouse.duckdb`, views over them: what BI tools, notebooks and "
            "`klinehouse query` read. Only months that changed are written; readers are never blocked."
        ),
        metadata={"dagster/uri": str(settings.serving_dir / VIEW_FILE)},
        automation_condition=FOLLOW_INPUTS,
        pool=POOL,
    )
    def serving() -> dg.MaterializeResult[None]:
        published = publish(settings)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": published.rows,
                "months_written": published.months_written,
                "files": published.files,
                "version": published.version,
                "source_environment": "simulated" if is_simulated(settings) else "exchange",
            }
        )

    return serving
