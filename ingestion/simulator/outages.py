"""Halts of the whole exchange: from when to when nobody trades, and how they are written on the command line."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingestion.errors import UsageError

_REMEDY = (
    "Write the halt and the resumption in UTC, such as 2023-03-24T12:39:41/2023-03-24T14:00, "
    "and optionally the minutes without trades before the halt: 2023-03-24T12:39:41/2023-03-24T14:00/69."
)


@dataclass(frozen=True, order=True)
class Outage:
    """A halt: no trade in `[halt, resume)`, and none in the whole minutes of `quiet` before it.

    The quiet minutes have bars, flat and without volume; the halted ones have none. The minute in which the halt falls
    ends with it. Trading resumes on a whole minute. Raises UsageError for times that do not fit together.
    """

    halt: datetime
    resume: datetime
    quiet: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.resume.second or self.resume.microsecond:
            raise UsageError(f"The outage {self} ends within a minute.", "Trading resumes on a whole minute.")
        if self.halt >= self.resume:
            raise UsageError(f"The outage {self} ends before it begins.", _REMEDY)
        if self.quiet < timedelta(0) or (self.quiet_from.year, self.quiet_from.month) != (
            self.halt.year,
            self.halt.month,
        ):
            raise UsageError(f"The quiet before the outage {self} begins in another month.", "Make it shorter.")

    @property
    def quiet_from(self) -> datetime:
        """The first minute without trades before the halt, or the minute of the halt."""
        return self.halt.replace(second=0, microsecond=0) - self.quiet

    @classmethod
    def parse(cls, text: str) -> "Outage":
        """`HALT/RESUME` or `HALT/RESUME/MINUTES`, in UTC; UsageError for anything else."""
        halt, _, rest = text.partition("/")
        resume, _, minutes = rest.partition("/")
        try:
            times = _utc(halt), _utc(resume), timedelta(minutes=int(minutes or 0))
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{text!r} is not an outage.", _REMEDY) from error
        return cls(*times)

    def __str__(self) -> str:
        times = "/".join(time.isoformat().removesuffix("+00:00") for time in (self.halt, self.resume))
        return f"{times}/{self.quiet // timedelta(minutes=1)}" if self.quiet else times


def utc_instant(text: str) -> datetime:
    """An ISO time, in UTC unless it says otherwise; UsageError when it is none."""
    try:
        return _utc(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a time.", "Write it in UTC, such as 2025-06-15T12:00.") from error


def _utc(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


def in_order(outages: Sequence[Outage]) -> tuple[Outage, ...]:
    """The outages by time; UsageError when two overlap."""
    ordered = tuple(sorted(outages))
    for earlier, later in itertools.pairwise(ordered):
        if later.quiet_from < earlier.resume:
            raise UsageError(f"The outages {earlier} and {later} overlap.", "Give them as one.")
    return ordered
