"""What goes wrong at the simulated exchange, on demand and the same in every run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from ingestion.errors import UsageError

# A share of all files, or the names of those meant, such as BTCUSDT-1h-2024-07.zip.
Chosen = float | tuple[str, ...]


@dataclass(frozen=True)
class _Kind:
    """How the value of a fault is read from text, which values it may have, and how that is said."""

    read: Callable[[str], Any]
    allows: Callable[[Any], bool]
    meaning: str


def _read_chosen(text: str) -> Chosen:
    return tuple(text.split(",")) if text.endswith(".zip") else float(text)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _is_chosen(value: Any) -> bool:
    return _is_share(value) or (
        isinstance(value, tuple) and bool(value) and all(name.endswith(".zip") for name in value)
    )


_SHARE = _Kind(float, _is_share, "a share from 0 to 1, such as 0.05")
_CHOSEN = _Kind(_read_chosen, _is_chosen, "a share from 0 to 1, or names of zips separated by commas")
_AMOUNT = _Kind(float, lambda value: 0 <= value < 1e9, "a number from 0, such as 2.5")
_TIME = _Kind(float, lambda value: 0 < value < 1e9, "a number above 0, such as 2.5")
_COUNT = _Kind(int, lambda value: isinstance(value, int) and 0 <= value < 10**9, "a whole number from 0, such as 3")
_STATUS = _Kind(int, lambda value: value in (0, 403, 451), "403 or 451")


@dataclass(frozen=True)
class Fault:
    """What a fault takes and what it does."""

    kind: _Kind
    meaning: str


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Shares choose the same files, bars and attempts in every run of a seed.

    Raises UsageError for a value that a fault cannot have.
    """

    latency: Annotated[float, Fault(_AMOUNT, "seconds before every answer")] = 0.0
    errors: Annotated[float, Fault(_SHARE, "requests answered with 503; another attempt is another choice")] = 0.0
    blocked: Annotated[
        int, Fault(_STATUS, "every request is refused, as by a firewall (403) or for a country (451)")
    ] = 0
    weight_limit: Annotated[int, Fault(_COUNT, "REST request weight per window; beyond it 429, then 418")] = 6000
    weight_window: Annotated[
        float, Fault(_TIME, "seconds until the used weight is 0 again; a minute at the real one")
    ] = 60.0
    patience: Annotated[int, Fault(_COUNT, "answers 429 in one window before the ban")] = 5
    ban_seconds: Annotated[float, Fault(_TIME, "length of the first ban; each ban doubles it, up to three days")] = (
        120.0
    )
    missing_monthly: Annotated[Chosen, Fault(_CHOSEN, "monthly files that are not there")] = 0.0
    late_monthly: Annotated[float, Fault(_AMOUNT, "days after the end of a month until its files are there")] = 0.0
    short_monthly: Annotated[
        Chosen, Fault(_CHOSEN, "monthly files with their first third only; their checksum agrees")
    ] = 0.0
    stale_checksum: Annotated[Chosen, Fault(_CHOSEN, "files whose checksum is that of other content")] = 0.0
    truncated_zip: Annotated[Chosen, Fault(_CHOSEN, "files of which only the first half comes")] = 0.0
    html_200: Annotated[Chosen, Fault(_CHOSEN, "files in whose place comes a page, with status 200")] = 0.0
    access_denied: Annotated[Chosen, Fault(_CHOSEN, "files refused with 403 and the host's XML")] = 0.0
    heal_after: Annotated[
        int, Fault(_COUNT, "fetches after which one of the five faults before this is gone; 0 is never")
    ] = 0
    archive_differs: Annotated[
        float, Fault(_SHARE, "bars whose volume, trades and close in the archive are not REST's")
    ] = 0.0

    stream_refused: Annotated[float, Fault(_SHARE, "handshakes of the stream answered with 503")] = 0.0
    stream_drop: Annotated[
        float, Fault(_SHARE, "bars in whose middle the connections that follow them are cut off")
    ] = 0.0
    stream_missing_close: Annotated[float, Fault(_SHARE, "bars whose closing frame never comes")] = 0.0
    stream_late_close: Annotated[
        float, Fault(_SHARE, "bars whose closing frame comes after the next frame of the stream")
    ] = 0.0
    stream_duplicates: Annotated[float, Fault(_SHARE, "frames of the stream that come twice")] = 0.0
    stream_garbage: Annotated[
        float, Fault(_SHARE, "bars before whose closing frame comes one that is no kline at all")
    ] = 0.0
    stream_silence: Annotated[
        float, Fault(_SHARE, "bars with whose close the connections that follow them fall silent, pings included")
    ] = 0.0
    stream_silence_seconds: Annotated[float, Fault(_TIME, "how long a silence of the stream lasts")] = 30.0
    stream_shutdown: Annotated[
        float, Fault(_AMOUNT, "seconds after which a connection hears serverShutdown and is closed; 0 is never")
    ] = 0.0

    def __post_init__(self) -> None:
        for name, fault in known_faults().items():
            value = getattr(self, name)
            if not fault.kind.allows(value):
                raise UsageError(f"The fault {name} cannot be {value!r}.", f"It is {fault.kind.meaning}.")

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Faults":
        """Faults from `name=value` each; UsageError names the choices."""
        known = known_faults()
        values = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in known:
                raise UsageError(f"{name!r} is not a fault.", f"Choose from {', '.join(known)}.")
            kind = known[name].kind
            try:
                values[name] = kind.read(value)
            except ValueError as error:
                raise UsageError(f"The fault {name} cannot be {value!r}.", f"It is {kind.meaning}.") from error
        return cls(**values)


def known_faults() -> dict[str, Fault]:
    """Every fault by name, in the order of its declaration."""
    return {name: get_args(hint)[1] for name, hint in get_type_hints(Faults, include_extras=True).items()}


NO_FAULTS = Faults()
