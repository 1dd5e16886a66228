"""Which bus the settings choose."""

import subprocess
import sys
from pathlib import Path

import pytest

from ingestion.bus.local import LocalBus
from ingestion.bus.open import init_bus, open_bus
from ingestion.errors import ConfigurationError
from ingestion.settings import load_settings


def test_a_home_has_a_bus_of_its_own_by_default(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    with open_bus(settings) as bus:
        assert isinstance(bus, LocalBus)
    assert settings.bus_path == tmp_path.resolve() / "bus" / "bus.sqlite"
    assert settings.bus_path.exists()


def test_setting_up_a_bus_says_what_it_made(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    assert init_bus(settings) == [str(settings.bus_path)]
    assert init_bus(settings) == []


def test_pubsub_wants_a_project() -> None:
    with pytest.raises(ConfigurationError, match="KLINEHOUSE_PUBSUB_PROJECT"):
        open_bus(load_settings(bus="pubsub"))


def test_the_local_bus_needs_nothing_of_google(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ingestion.bus.open import open_bus\n"
        "from ingestion.settings import load_settings\n"
        "open_bus(load_settings(home=sys.argv[1])).close()\n"
        "sys.exit(any(name.startswith(('google.pubsub_v1', 'google.api_core', 'grpc')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == 0
