"""Whether the time can be trusted: labs are ended by the hour only while clocks agree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TOLERANCE = timedelta(seconds=60)
"""How far this machine's clock may be from vCenter's, or jump, before timers stop."""

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
FEW = 2


@dataclass(frozen=True)
class ClockReading:
    """This machine's two clocks at one moment: the time, and seconds that never go back."""

    at: datetime
    monotonic_s: float


def find_clock_doubt(
    now: ClockReading, last: ClockReading | None, vcenter_at: datetime
) -> str | None:
    """Say why nothing may be ended by the hour now; None when the clocks agree.

    A jump is forgiven at the next reading that goes on from there and agrees with vCenter. One
    that happened while nobody looked, or over a restart of the machine, is vCenter's to judge.

    Args:
        now: this machine's clocks.
        last: what they showed before, as far back as that may be.
        vcenter_at: vCenter's own time.
    """
    ahead = now.at - vcenter_at
    if abs(ahead) > TOLERANCE:
        side = "ahead of" if ahead > timedelta() else "behind"
        return f"this machine's clock is {describe_time(abs(ahead))} {side} vCenter's"
    if last is None:
        return None
    jump = _measure_jump(now, last)
    if abs(jump) > TOLERANCE:
        side = "forward" if jump > timedelta() else "back"
        return f"this machine's clock jumped {side} by {describe_time(abs(jump))}"
    return None


def _measure_jump(now: ClockReading, last: ClockReading) -> timedelta:
    passed = now.at - last.at
    if now.monotonic_s < last.monotonic_s:  # the machine was started anew between them
        return min(passed, timedelta())
    return passed - timedelta(seconds=now.monotonic_s - last.monotonic_s)


def to_note(reading: ClockReading) -> str:
    """Say a reading in a line, to be kept."""
    return f"{reading.at.isoformat()} {reading.monotonic_s}"


def from_note(text: str | None) -> ClockReading | None:
    """Read a line of `to_note`; None when it is none."""
    at, _, monotonic_s = (text or "").partition(" ")
    try:
        return ClockReading(datetime.fromisoformat(at).astimezone(UTC), float(monotonic_s))
    except ValueError:
        return None


def describe_time(time: timedelta) -> str:
    """Say a time in the unit that fits, never more than there is."""
    if time >= FEW * DAY:
        return f"{time // DAY} d"
    if time >= FEW * HOUR:
        return f"{time // HOUR} h"
    if time >= FEW * MINUTE:
        return f"{time // MINUTE} min"
    return f"{time // timedelta(seconds=1)} s"
