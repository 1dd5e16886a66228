"""How long and how much a connection of the stream may; the defaults are the exchange's own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamLimits:
    """Lengths are the machine's seconds, whatever the speed of the exchange's clock, except where they say otherwise.

    The life of a connection and the period of updates are in exchange time: at speed 60 a connection lives 24 minutes.
    """

    ping_every: float = 20.0
    pong_within: float = 60.0
    life: float = 86_400.0  # exchange time
    messages_per_second: int = 5
    streams: int = 1024
    connects: int = 300
    connects_window: float = 300.0
    update_every: float = 2.0  # exchange time
    updates_per_second: float = 4.0  # of one stream, so that a fast clock stays cheap
    close_delay: float = 0.004  # from a bar's close to its closing frame; 4 to 5 ms were seen at the real one
    buffer_bytes: int = 1 << 20  # not yet taken by the client; beyond it the connection is cut off
    shutdown_lead: float = 0.05  # from the event serverShutdown to the close


EXCHANGE_LIMITS = StreamLimits()
