from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingestion.errors import ConfigurationError
from ingestion.klines import Series
from ingestion.settings import Settings, load_settings


def test_the_defaults_are_three_series_at_five_minutes_from_2020() -> None:
    settings = load_settings()
    assert settings.series == (Series("BTCUSDT", "5m"), Series("ETHUSDT", "5m"), Series("SOLUSDT", "5m"))
    assert settings.start == date(2020, 1, 1)


def test_bigquery_is_not_asked_and_bounded_unless_told_otherwise() -> None:
    settings = load_settings()
    assert (settings.target, settings.bigquery_project) == ("duckdb", "")
    assert (settings.bigquery_query_gb, settings.bigquery_build_gb) == (10, 1024)


def test_the_home_is_a_hidden_folder_here_as_an_absolute_path(tmp_path: Path) -> None:
    assert load_settings().home == tmp_path.resolve() / ".klinehouse"


def test_a_tilde_in_the_home_is_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    assert load_settings(home="~/klines").home == tmp_path.resolve() / "someone" / "klines"


def test_the_raw_zone_is_in_the_home_unless_a_url_is_given(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path).raw_root == str(tmp_path.resolve() / "raw")
    assert load_settings(raw_url="gs://bucket/raw").raw_root == "gs://bucket/raw"


def test_the_environment_sets_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINEHOUSE_DOWNLOAD_WORKERS", "3")
    assert load_settings().download_workers == 3


def test_a_dotenv_file_sets_a_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KLINEHOUSE_INTERVAL=1h\nSOMETHING_ELSE=1\n")
    assert load_settings().interval == "1h"


def test_the_environment_wins_over_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KLINEHOUSE_INTERVAL=1h\n")
    monkeypatch.setenv("KLINEHOUSE_INTERVAL", "4h")
    assert load_settings().interval == "4h"


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINEHOUSE_INTERVAL", "4h")
    assert load_settings(interval="1d").interval == "1d"


def test_an_argument_that_was_not_given_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINEHOUSE_INTERVAL", "4h")
    assert load_settings(interval=None).interval == "4h"


def test_symbols_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINEHOUSE_SYMBOLS", " BTCUSDT , ETHUSDT,")
    assert load_settings().symbols == ("BTCUSDT", "ETHUSDT")


@given(st.lists(st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT"]), min_size=1, max_size=8))
def test_a_symbol_named_twice_is_kept_once_in_the_order_given(symbols: list[str]) -> None:
    assert list(load_settings(symbols=",".join(symbols)).symbols) == list(dict.fromkeys(symbols))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("symbols", "btcusdt"),
        ("symbols", "../BTCUSDT"),
        ("symbols", ""),
        ("symbols", ","),
        ("interval", "7m"),
        ("start", "yesterday"),
        ("archive_url", "ftp://data.binance.vision"),
        ("archive_url", "/etc"),
        ("raw_url", "gs://"),
        ("raw_url", "gs:///raw"),
        ("target", "postgres"),
        ("bus", "kafka"),
        ("pubsub_project", "../other"),
        ("bigquery_project", "A project"),
        ("bigquery_location", "EU; drop"),
        ("bigquery_priority", "soon"),
        ("bigquery_build_gb", "0"),
        ("bigquery_increment_minutes", "-1"),
        ("bigquery_query_gb", "0"),
        ("download_workers", "0"),
        ("download_workers", "65"),
        ("http_timeout", "0"),
        ("http_attempts", "0"),
        ("max_file_mb", "0"),
        ("ui_port", "70000"),
    ],
)
def test_a_wrong_value_names_its_setting_and_the_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"KLINEHOUSE_{name.upper()}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert caught.value.message.startswith(f"KLINEHOUSE_{name.upper()} is ")


def test_a_wrong_value_says_how_to_set_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(interval="7m")
    assert ".env" in caught.value.remedy


def test_a_slash_at_the_end_of_the_archive_url_is_dropped() -> None:
    assert load_settings(archive_url="http://127.0.0.1:8080/").archive_url == "http://127.0.0.1:8080"


def test_printed_values_hide_a_password_in_a_url() -> None:
    values = load_settings(archive_url="https://reader:s3cret@mirror.example/x").masked()
    assert values["archive_url"] == "https://reader:***@mirror.example/x"


def test_printed_values_show_where_the_raw_zone_is(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path).masked()["raw_url"] == str(tmp_path.resolve() / "raw")


def test_every_setting_is_printed() -> None:
    assert load_settings().masked().keys() == Settings.model_fields.keys()


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValidationError):
        load_settings().interval = "1h"
