"""Every setting of Klinehouse: one class, environment prefix `KLINEHOUSE_`, a `.env` read if present."""

import re
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ingestion.errors import ConfigurationError, UsageError
from ingestion.klines import INTERVAL_MICROS, Series

PREFIX = "KLINEHOUSE_"
_PASSWORD = re.compile(r"(://[^:/@]*:)[^@/]*@")


class Settings(BaseSettings):
    """The effective settings: arguments, then environment, then `.env`, then these defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, validate_default=True
    )

    home: Path = Field(Path(".klinehouse"), description="Folder of everything that Klinehouse keeps.")
    target: Literal["duckdb", "bigquery"] = Field("duckdb", description="The warehouse engine.")
    raw_url: str = Field(
        "",
        description="Root of the raw zone: a folder, or gs://BUCKET/FOLDER, or any fsspec URL; empty means HOME/raw.",
    )
    archive_url: str = Field("https://data.binance.vision", description="Archive of monthly and daily kline files.")
    rest_url: str = Field(
        "",
        description="Host of the REST API; empty means the market-data host (https://data-api.binance.vision), or the "
        "simulated exchange itself where the archive is a simulated one.",
    )
    stream_url: str = Field(
        "",
        description="Host of the kline streams; empty means the market-data host (wss://data-stream.binance.vision), "
        "or the simulated exchange's own where the archive is a simulated one.",
    )
    symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        ("BTCUSDT", "ETHUSDT", "SOLUSDT"), description="Symbols to keep, separated by commas."
    )
    interval: str = Field("5m", description="Base interval; 15m 1h 4h 1d are derived from it.")
    start: date = Field(date(2020, 1, 1), description="First day of history.")
    download_workers: int = Field(16, ge=1, le=64, description="Files downloaded and landed at the same time.")
    http_timeout: float = Field(30.0, gt=0, description="Seconds to wait for the exchange to answer.")
    http_attempts: int = Field(6, ge=1, description="Tries per request before it counts as refused.")
    max_wait: float = Field(300.0, ge=0, description="Seconds of rate limits and bans that a run waits out in all.")
    rest_weight: int = Field(4800, ge=40, description="Request weight per minute to stay under; the exchange has 6000.")
    max_file_mb: int = Field(1024, ge=1, description="Largest file accepted from the exchange, packed or unpacked.")
    collector_host: str = Field("127.0.0.1", description="Address of the collector's /health, /metrics and /latest.")
    collector_port: int = Field(8710, ge=0, le=65535, description="Port of the same; 0 takes a free one.")
    stale_after: float = Field(
        45.0, gt=0, le=70, description="Seconds of silence after which a connection is given up and opened again."
    )
    connection_life: float = Field(
        82_800.0,
        gt=0,
        lt=86_400,
        description="Seconds until a connection hands over, by the exchange's clock; it ends them at a day.",
    )
    catch_up_bars: int = Field(
        3000, ge=1, description="Bars of a series that the collector fetches after an interruption; history has more."
    )
    spool_mb: int = Field(64, ge=1, description="Size of what is kept while the bus is unavailable.")
    streaming: bool = Field(True, description="Whether Dagster's daemon keeps a streaming run, and heals and watches.")
    warehouse_wait: float = Field(30.0, ge=0, description="Seconds to wait for a busy warehouse.")
    warehouse_memory_mb: int = Field(2048, ge=256, description="Memory limit of the warehouse engine.")
    serving_grace: float = Field(600.0, ge=0, description="Seconds that superseded serving files stay readable.")
    bus: Literal["local", "pubsub"] = Field("local", description="Message bus: a queue in HOME/bus, or Google Pub/Sub.")
    pubsub_project: str = Field(
        "", pattern=r"^[a-z0-9.:-]*$", description="Google Cloud project of the Pub/Sub topics."
    )
    bigquery_project: str = Field(
        "",
        pattern=r"^[a-z0-9.:-]*$",
        description="Google Cloud project of the warehouse.",
    )
    bigquery_location: str = Field("EU", pattern=r"^[A-Za-z0-9-]+$", description="Where BigQuery keeps the datasets.")
    bigquery_priority: Literal["interactive", "batch"] = Field(
        "interactive", description="Priority of the jobs that build; `batch` waits for idle slots."
    )
    bigquery_build_gb: int = Field(1024, ge=1, description="Most that one statement of a build may read, in GiB.")
    bigquery_increment_minutes: float = Field(
        5.0,
        ge=0,
        description="Minutes between runs over new bars; market_data_live has them at once.",
    )
    bigquery_query_gb: float = Field(10.0, gt=0, description="Most that `klinehouse query` reads unless told, in GiB.")
    run_partitions: int = Field(
        120,
        ge=1,
        description="Months of symbols that one run of a backfill lands at most, where it is spread over runs.",
    )
    ui_host: str = Field("127.0.0.1", description="Address of the Dagster UI.")
    ui_port: int = Field(3000, ge=1, le=65535, description="Port of the Dagster UI.")

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @field_validator("raw_url")
    @classmethod
    def _bucket(cls, url: str) -> str:
        if url.startswith(("gs://", "gcs://")) and not urlsplit(url).netloc:
            raise ValueError("names no bucket")
        return url

    @field_validator("archive_url", "rest_url")
    @classmethod
    def _http(cls, url: str, info: ValidationInfo) -> str:
        if not url and info.field_name == "rest_url":
            return url
        if not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if not urlsplit(url).hostname:
            raise ValueError("names no host")
        return url.rstrip("/")

    @field_validator("stream_url")
    @classmethod
    def _websocket(cls, url: str) -> str:
        if url and not (url.startswith(("ws://", "wss://")) and urlsplit(url).hostname):
            raise ValueError("must start with ws:// or wss:// and name a host")
        return url.rstrip("/")

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("symbols")
    @classmethod
    def _known_symbols(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        if not symbols:
            raise ValueError("name at least one symbol")
        try:
            return tuple(dict.fromkeys(Series(symbol, "1m").symbol for symbol in symbols))
        except UsageError as error:
            raise ValueError(str(error)) from error

    @field_validator("interval")
    @classmethod
    def _known_interval(cls, interval: str) -> str:
        if interval not in INTERVAL_MICROS:
            raise ValueError(f"choose one of {' '.join(INTERVAL_MICROS)}")
        return interval

    @property
    def raw_root(self) -> str:
        return self.raw_url or str(self.home / "raw")

    @property
    def raw_bucket(self) -> tuple[str, str] | None:
        """Bucket and folder (without slashes around it) of a raw zone on Google Cloud Storage; None when it is not."""
        parts = urlsplit(self.raw_url)
        return (parts.netloc, parts.path.strip("/")) if parts.scheme in ("gs", "gcs") else None

    @property
    def warehouse_path(self) -> Path:
        return self.home / "warehouse" / "klinehouse.duckdb"

    @property
    def serving_dir(self) -> Path:
        return self.home / "serving"

    @property
    def bus_path(self) -> Path:
        return self.home / "bus" / "bus.sqlite"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"

    @property
    def log_dir(self) -> Path:
        return self.home / "logs"

    @property
    def spool_path(self) -> Path:
        return self.home / "bus" / "spool" / "collector.db"

    def masked(self) -> dict[str, object]:
        """The effective values, with passwords in URLs replaced by stars."""
        values = self.model_dump(mode="json") | {"raw_url": self.raw_root}
        return {name: _masked(value) for name, value in values.items()}

    @cached_property
    def series(self) -> tuple[Series, ...]:
        return tuple(Series(symbol, self.interval) for symbol in self.symbols)


def _masked(value: object) -> object:
    return _PASSWORD.sub(r"\1***@", value) if isinstance(value, str) else value


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; values given here (and not None) win over environment and `.env`.

    Raises ConfigurationError naming the setting, what is wrong with it, and how to set it.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{first['loc'][0]}".upper() if first["loc"] else PREFIX
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(
            f"{name} is {_masked(first['input'])!r}: {message}.",
            "Set it in the environment or in .env; `klinehouse config` prints all settings.",
        ) from error
