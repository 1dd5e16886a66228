"""The bus that the settings choose: opened, set up, and compared with the topology that it must have."""

from ingestion.bus.local import LocalBus
from ingestion.bus.port import TOPOLOGY, Bus
from ingestion.errors import ConfigurationError
from ingestion.settings import Settings


def open_bus(settings: Settings) -> Bus:
    """Raises BusUnavailable when it cannot be reached, or lacks a topic or a subscription."""
    if settings.bus == "local":
        return LocalBus(settings.bus_path)
    # Google's libraries take half a second to import, and the local bus does not need them.
    from ingestion.bus.pubsub import PubSubBus

    return PubSubBus.verified(_project(settings))


def init_bus(settings: Settings) -> list[str]:
    """Create what is missing of the topology; returns its names.

    What is there already is only compared: raises BusUnavailable that names each setting that is not as it must be.
    """
    if settings.bus == "local":
        is_new = not settings.bus_path.exists()
        LocalBus(settings.bus_path).close()
        return [str(settings.bus_path)] if is_new else []
    from ingestion.bus.pubsub_client import clients
    from ingestion.bus.pubsub_topology import create_missing

    with clients(_project(settings)) as opened:
        return create_missing(opened, TOPOLOGY)


def _project(settings: Settings) -> str:
    if not settings.pubsub_project:
        raise ConfigurationError(
            "KLINEHOUSE_PUBSUB_PROJECT is empty, and KLINEHOUSE_BUS is pubsub.",
            "Set it to the Google Cloud project of the topics.",
        )
    return settings.pubsub_project
