import dataclasses

import pytest

from ingestion.errors import UsageError
from ingestion.simulator.faults import Faults, known_faults

FILES = ("missing_monthly", "short_monthly", "stale_checksum", "truncated_zip", "html_200", "access_denied")


def test_by_default_nothing_goes_wrong() -> None:
    assert Faults.parse([]) == Faults()
    amounts = ("weight_limit", "weight_window", "patience", "ban_seconds", "stream_silence_seconds")
    assert not any(value for name, value in dataclasses.asdict(Faults()).items() if name not in amounts)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("latency=0.05", "latency", 0.05),
        ("errors=1", "errors", 1.0),
        ("blocked=451", "blocked", 451),
        ("weight_limit=100", "weight_limit", 100),
        ("patience=0", "patience", 0),
        ("stale_checksum=0.1", "stale_checksum", 0.1),
        ("stale_checksum=A-1h-2024-07.zip", "stale_checksum", ("A-1h-2024-07.zip",)),
        ("html_200=A-1h-2024-07.zip,B-1h-2024-07.zip", "html_200", ("A-1h-2024-07.zip", "B-1h-2024-07.zip")),
    ],
)
def test_a_fault_is_read_from_text(text: str, name: str, value: object) -> None:
    assert Faults.parse([text]) == Faults(**{name: value})


def test_several_faults_are_one_plan() -> None:
    assert Faults.parse(["latency=0.5", "errors=0.25"]) == Faults(latency=0.5, errors=0.25)


@pytest.mark.parametrize("text", ["lag=1", "", "=", "Latency=1", "parse=1"])
def test_an_unknown_fault_is_refused_with_the_choices(text: str) -> None:
    with pytest.raises(UsageError, match="is not a fault") as refused:
        Faults.parse([text])
    assert all(name in refused.value.remedy for name in known_faults())


@pytest.mark.parametrize(
    "text",
    [
        "latency",
        "latency=",
        "latency=-1",
        "latency=nan",
        "latency=inf",
        "errors=1.5",
        "errors=-0.1",
        "errors=nan",
        "blocked=404",
        "weight_limit=1.5",
        "weight_limit=-1",
        "weight_window=0",
        "ban_seconds=0",
        "heal_after=x",
        "archive_differs=2",
        *(f"{name}={value}" for name in FILES for value in ("2", "-1", "A-1h-2024-07", "A.csv,B.zip", "")),
    ],
)
def test_a_bad_value_is_refused_with_what_is_meant(text: str) -> None:
    name = text.partition("=")[0]
    with pytest.raises(UsageError, match=f"The fault {name} cannot be") as refused:
        Faults.parse([text])
    assert refused.value.remedy == f"It is {known_faults()[name].kind.meaning}."


def test_a_bad_value_in_a_program_is_refused_too() -> None:
    with pytest.raises(UsageError, match="The fault errors cannot be 2"):
        Faults(errors=2)
