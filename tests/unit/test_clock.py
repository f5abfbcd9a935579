from __future__ import annotations

from datetime import timedelta

import pytest

from provisioner.rules.clock import (
    ClockReading,
    describe_time,
    find_clock_doubt,
    from_note,
    to_note,
)
from tests.fakes.samples import NOW


def read_at(seconds: float, *, wall_s: float | None = None) -> ClockReading:
    """Both clocks after so many seconds; `wall_s` when the wall clock shows another time."""
    passed = seconds if wall_s is None else wall_s
    return ClockReading(NOW + timedelta(seconds=passed), 5000 + seconds)


@pytest.mark.parametrize(
    ("ahead_s", "doubt"),
    [
        (0, None),
        (59, None),
        (60, None),
        (61, "this machine's clock is 61 s ahead of vCenter's"),
        (-59, None),
        (-60, None),
        (-61, "this machine's clock is 61 s behind vCenter's"),
        (7200, "this machine's clock is 2 h ahead of vCenter's"),
        (-86400 * 30, "this machine's clock is 30 d behind vCenter's"),
    ],
)
def test_clocks_agree_within_a_minute(ahead_s: int, doubt: str | None) -> None:
    vcenter_at = NOW - timedelta(seconds=ahead_s)
    assert find_clock_doubt(read_at(0), None, vcenter_at) == doubt


@pytest.mark.parametrize(
    ("wall_s", "doubt"),
    [
        (15, None),
        (15 + 59, None),
        (15 + 61, "this machine's clock jumped forward by 61 s"),
        (15 - 59, None),
        (15 - 61, "this machine's clock jumped back by 61 s"),
        (86400 * 30, "this machine's clock jumped forward by 29 d"),
    ],
)
def test_a_jump_stops_timers_even_when_vcenter_jumped_along(
    wall_s: float, doubt: str | None
) -> None:
    now = read_at(15, wall_s=wall_s)
    assert find_clock_doubt(now, read_at(0), now.at) == doubt


def test_a_jump_is_forgiven_once_the_clock_goes_on_from_there() -> None:
    jumped, after = read_at(15, wall_s=7200), read_at(30, wall_s=7215)
    assert find_clock_doubt(jumped, read_at(0), jumped.at)
    assert find_clock_doubt(after, jumped, after.at) is None
    assert find_clock_doubt(after, jumped, NOW), "not while vCenter says otherwise"


def test_a_long_time_without_a_look_is_no_jump() -> None:
    later = read_at(86400 * 9)
    assert find_clock_doubt(later, read_at(0), later.at) is None


def test_over_a_restart_only_a_clock_that_went_back_is_a_jump() -> None:
    before = read_at(0)
    later = ClockReading(NOW + timedelta(days=9), 20.0)
    assert find_clock_doubt(later, before, later.at) is None
    earlier = ClockReading(NOW - timedelta(days=9), 20.0)
    assert find_clock_doubt(earlier, before, earlier.at) == (
        "this machine's clock jumped back by 9 d"
    )


def test_a_reading_is_kept_in_a_note() -> None:
    reading = read_at(1.25)
    assert from_note(to_note(reading)) == reading


@pytest.mark.parametrize("text", [None, "", "2026", f"{NOW} x", f"{NOW:%Y} 1"])
def test_a_note_that_cannot_be_read_is_none(text: str | None) -> None:
    assert from_note(text) is None


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (timedelta(days=2), "2 d"),
        (timedelta(days=2, microseconds=-1), "47 h"),
        (timedelta(hours=2, microseconds=-1), "119 min"),
        (timedelta(minutes=2, microseconds=-1), "119 s"),
        (timedelta(), "0 s"),
    ],
)
def test_a_time_is_never_said_longer_than_it_is(time: timedelta, text: str) -> None:
    assert describe_time(time) == text
