from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from provisioner.errors import InputError, RefusedError
from provisioner.model.lab import (
    Desired,
    Lab,
    LabState,
    Lease,
    WorkItem,
    WorkStatus,
)
from provisioner.model.spec import LeasePolicy
from provisioner.rules.lease import (
    LeaseAct,
    build_lease,
    decide_lease,
    describe_lease,
    extend_lease,
    find_warning,
    must_wait,
)
from tests.fakes.samples import make_lab

POLICY = LeasePolicy(default_days=14, max_days=60, grace_days=3)
NOW = datetime(2026, 3, 2, 9, 30, 15, 999999, tzinfo=UTC)
MADE = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
ENDS = MADE + timedelta(days=14)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
GRACE = 3 * DAY
S, A = LabState, LeaseAct


@pytest.mark.parametrize(("days", "ends"), [(None, 14), (1, 1), (60, 60)])
def test_a_lease_ends_after_its_days(days: int | None, ends: int) -> None:
    lease = build_lease(POLICY, days, NOW)
    assert lease.ends_at == datetime(2026, 3, 2, 9, 30, 15, tzinfo=UTC) + timedelta(days=ends)
    assert lease.grace_for == timedelta(days=3)


@pytest.mark.parametrize("days", [0, -1, 61, 10**12])
def test_other_days_are_refused_with_what_is_allowed(days: int) -> None:
    with pytest.raises(InputError) as caught:
        build_lease(POLICY, days, NOW)
    assert caught.value.what == f"a lease of {days} days is not allowed"
    assert caught.value.hint == ("this blueprint allows 1 to 60 days, 14 when nothing is said")


def make(state: LabState = S.READY, *, lived_for: timedelta = 14 * DAY) -> Lab:
    lease = Lease(ENDS, GRACE)
    return replace(make_lab(), state=state, created_at=ENDS - lived_for, lease=lease)


@pytest.mark.parametrize(
    ("state", "after_end", "act"),
    [
        (S.READY, -14 * DAY, A.NOTHING),
        (S.READY, -3 * DAY - SECOND, A.NOTHING),
        (S.READY, -3 * DAY, A.WARN),
        (S.READY, -SECOND, A.WARN),
        (S.READY, 0 * DAY, A.EXPIRE),
        (S.READY, GRACE - SECOND, A.EXPIRE),
        (S.READY, GRACE, A.DESTROY),
        (S.READY, 900 * DAY, A.DESTROY),
        (S.FAILED, -SECOND, A.WARN),
        (S.FAILED, 0 * DAY, A.EXPIRE),
        (S.FAILED, GRACE, A.DESTROY),
        (S.PROVISIONING, -SECOND, A.WARN),
        (S.PROVISIONING, 0 * DAY, A.NOTHING),
        (S.PROVISIONING, GRACE, A.DESTROY),
        (S.EXPIRED, 0 * DAY, A.NOTHING),
        (S.EXPIRED, GRACE - SECOND, A.NOTHING),
        (S.EXPIRED, GRACE, A.DESTROY),
        (S.EXPIRED, -SECOND, A.REVIVE),
        (S.TEARING_DOWN, GRACE, A.NOTHING),
        (S.RESIDUE, GRACE, A.NOTHING),
        (S.GONE, GRACE, A.NOTHING),
        (S.FORGOTTEN, GRACE, A.NOTHING),
    ],
)
def test_what_a_lease_asks_for(state: LabState, after_end: timedelta, act: LeaseAct) -> None:
    assert decide_lease(make(state), ENDS + after_end, ()) is act


@pytest.mark.parametrize("after_end", [-DAY, 0 * DAY, GRACE])
@pytest.mark.parametrize("state", [S.READY, S.EXPIRED])
def test_a_lab_that_is_not_wanted_any_more_is_left_alone(
    state: LabState, after_end: timedelta
) -> None:
    lab = replace(make(state), desired=Desired.ABSENT)
    assert decide_lease(lab, ENDS + after_end, ()) is A.NOTHING


def test_each_warning_is_made_once() -> None:
    lab, warned, made = make(), set[str](), []
    for hour in range(14 * 24):
        now = MADE + hour * HOUR
        if decide_lease(lab, now, warned) is A.WARN:
            warned.add(find_warning(lab, now) or "")
            made.append(ENDS - now)
    assert made == [3 * DAY, DAY]
    assert warned == {
        "the lease ends on 2026-03-16 09:30 UTC, in less than 3 d; the lab is powered off then",
        "the lease ends on 2026-03-16 09:30 UTC, in less than 24 h; the lab is powered off then",
    }


def test_after_a_pause_only_the_newest_warning_is_made() -> None:
    lab, now = make(), ENDS - HOUR
    warning = find_warning(lab, now)
    assert warning
    assert "less than 24 h" in warning
    assert decide_lease(lab, now, {warning}) is A.NOTHING


def test_a_longer_lease_is_warned_of_anew() -> None:
    lab = make()
    warned = {find_warning(lab, ENDS - HOUR) or ""}
    longer = replace(lab, lease=Lease(ENDS + 7 * DAY, GRACE))
    assert decide_lease(longer, ENDS - HOUR, warned) is A.NOTHING
    assert decide_lease(longer, ENDS + 6 * DAY, warned) is A.WARN


@pytest.mark.parametrize(
    ("lived_for", "before"),
    [
        (60 * DAY, [3 * DAY, DAY]),
        (12 * DAY, [3 * DAY, DAY]),
        (4 * DAY, [DAY, 12 * HOUR]),
        (DAY, [6 * HOUR, 3 * HOUR]),
    ],
)
def test_a_short_lease_is_warned_of_in_proportion(
    lived_for: timedelta, before: list[timedelta]
) -> None:
    lab = make(lived_for=lived_for)
    first, second = before
    assert find_warning(lab, ENDS - first - SECOND) is None
    assert find_warning(lab, ENDS - first) == find_warning(lab, ENDS - second - SECOND)
    assert find_warning(lab, ENDS - second) != find_warning(lab, ENDS - first)


@pytest.mark.parametrize(
    ("workflow", "status", "ago", "waits"),
    [
        ("expire", WorkStatus.FAILED, 0 * HOUR, True),
        ("revive", WorkStatus.FAILED, 15 * 60 * SECOND - SECOND, True),
        ("expire", WorkStatus.FAILED, 15 * 60 * SECOND, False),
        ("expire", WorkStatus.DONE, 0 * HOUR, False),
        ("converge", WorkStatus.FAILED, 0 * HOUR, False),
        ("expire", WorkStatus.FAILED, -HOUR, False),
    ],
)
def test_what_failed_lately_is_not_asked_again_at_once(
    workflow: str, status: WorkStatus, ago: timedelta, *, waits: bool
) -> None:
    last = WorkItem(1, workflow, "ana-mlops", 1, 1, status, MADE, ended_at=NOW - ago)
    assert must_wait(last, NOW) is waits
    assert must_wait(None, NOW) is False


@pytest.mark.parametrize(
    ("now", "days", "until", "ends_at"),
    [
        (NOW, 7, None, ENDS + 7 * DAY),
        (NOW, 46, None, MADE + 60 * DAY),
        (ENDS + DAY, 7, None, ENDS + 8 * DAY),
        (NOW, None, date(2026, 3, 20), datetime(2026, 3, 20, 23, 59, 59, tzinfo=UTC)),
        (NOW, None, date(2026, 3, 16), datetime(2026, 3, 16, 23, 59, 59, tzinfo=UTC)),
        (ENDS + DAY, None, date(2026, 3, 17), datetime(2026, 3, 17, 23, 59, 59, tzinfo=UTC)),
        (NOW, None, date(2026, 5, 1), MADE + 60 * DAY),
    ],
)
@pytest.mark.parametrize("state", [S.PROVISIONING, S.READY, S.FAILED, S.EXPIRED])
def test_a_lease_is_extended(
    state: LabState, now: datetime, days: int | None, until: date | None, ends_at: datetime
) -> None:
    lab = make(state)
    assert extend_lease(lab, now, days=days, until=until) == Lease(ends_at, GRACE)


TOO_LATE = "lab ana-mlops can be extended until 2026-05-01 at most"


@pytest.mark.parametrize(
    ("now", "days", "until", "what"),
    [
        (NOW, 47, None, TOO_LATE),
        (NOW, 10**12, None, TOO_LATE),
        (ENDS + DAY, 46, None, TOO_LATE),
        (NOW, None, date(2026, 5, 2), TOO_LATE),
        (NOW, None, date.max, TOO_LATE),
        (MADE + 61 * DAY, 1, None, TOO_LATE),
        (NOW, 0, None, "a lease is not extended by 0 days"),
        (NOW, -(10**12), None, "a lease is not extended by -1000000000000 days"),
        (NOW, None, date(2026, 3, 1), "the lease cannot end on 2026-03-01: that is in the past"),
        (NOW, None, date(2026, 3, 15), "lab ana-mlops lives until 2026-03-16 09:30 UTC already"),
        (NOW, None, None, "say either --days or --until"),
        (NOW, 1, date(2026, 3, 20), "say either --days or --until"),
    ],
)
def test_other_ends_are_refused(
    now: datetime, days: int | None, until: date | None, what: str
) -> None:
    with pytest.raises(InputError) as caught:
        extend_lease(make(), now, days=days, until=until)
    assert caught.value.what == what


@pytest.mark.parametrize("state", [S.TEARING_DOWN, S.RESIDUE, S.GONE, S.FORGOTTEN])
def test_a_lab_that_goes_is_not_extended(state: LabState) -> None:
    with pytest.raises(RefusedError, match=f"{state}: its lease can no longer be extended"):
        extend_lease(make(state), NOW, days=1, until=None)


def test_a_lab_that_is_to_go_is_not_extended() -> None:
    with pytest.raises(RefusedError):
        extend_lease(replace(make(), desired=Desired.ABSENT), NOW, days=1, until=None)


OVERDUE = "OVERDUE since 2026-03-16 09:30 UTC"


@pytest.mark.parametrize(
    ("state", "after_end", "text"),
    [
        (S.READY, -14 * DAY, "until 2026-03-16 09:30 UTC, ends in 14 d"),
        (S.READY, -2 * DAY, "until 2026-03-16 09:30 UTC, ends in 2 d"),
        (S.READY, -2 * DAY + SECOND, "until 2026-03-16 09:30 UTC, ends in 47 h"),
        (S.READY, -10 * HOUR, "until 2026-03-16 09:30 UTC, ends in 10 h"),
        (S.READY, -9 * HOUR, "until 2026-03-16 09:30 UTC, ENDS TODAY"),
        (S.READY, -SECOND, "until 2026-03-16 09:30 UTC, ENDS TODAY"),
        (
            S.READY,
            0 * DAY,
            f"{OVERDUE}: not powered off yet, destroyed on 2026-03-19 09:30 UTC",
        ),
        (
            S.EXPIRED,
            0 * DAY,
            f"{OVERDUE}: powered off, destroyed on 2026-03-19 09:30 UTC",
        ),
        (
            S.EXPIRED,
            GRACE,
            f"{OVERDUE}: powered off, due to be destroyed since 2026-03-19 09:30 UTC",
        ),
        (S.TEARING_DOWN, GRACE, "until 2026-03-16 09:30 UTC"),
    ],
)
def test_a_lease_is_said_in_one_line(state: LabState, after_end: timedelta, text: str) -> None:
    assert describe_lease(make(state), ENDS + after_end) == text
