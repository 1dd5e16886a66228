"""The exchange's clock, as far as it is known: it decides what has closed, and how old a connection is."""

# A frame that is so far ahead of all before it counts only when REST agrees.
_LEAP = 86_400_000_000


class ExchangeClock:
    """`now` is in microseconds since 1970: the latest that frames have told, corrected by what REST answers."""

    def __init__(self, now: int) -> None:
        self.now = now

    def believes(self, event_time: int) -> bool:
        return event_time <= self.now + _LEAP

    def heard(self, event_time: int) -> None:
        self.now = max(self.now, event_time)

    def asked(self, server_time: int) -> None:
        self.now = server_time

    def seconds(self) -> float:
        return self.now / 1e6
