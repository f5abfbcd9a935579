from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from provisioner.errors import InputError
from provisioner.model.lab import Lease
from provisioner.model.spec import LeasePolicy
from provisioner.rules.lease import build_lease, describe_lease

POLICY = LeasePolicy(default_days=14, max_days=60, grace_days=3)
NOW = datetime(2026, 3, 2, 9, 30, 15, 999999, tzinfo=UTC)


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


ENDS = datetime(2026, 3, 16, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before_end", "text"),
    [
        (timedelta(days=14), "until 2026-03-16 09:30 UTC, 14 days left"),
        (timedelta(days=2), "until 2026-03-16 09:30 UTC, 2 days left"),
        (timedelta(days=2, seconds=-1), "until 2026-03-16 09:30 UTC, 47 hours left"),
        (timedelta(hours=2), "until 2026-03-16 09:30 UTC, 2 hours left"),
        (timedelta(minutes=119), "until 2026-03-16 09:30 UTC, 119 minutes left"),
        (timedelta(seconds=1), "until 2026-03-16 09:30 UTC, 0 minutes left"),
        (timedelta(), "ended 2026-03-16 09:30 UTC, 3 days of grace left"),
        (timedelta(days=-2), "ended 2026-03-16 09:30 UTC, 24 hours of grace left"),
        (timedelta(days=-3), "ended 2026-03-16 09:30 UTC, no grace left"),
        (timedelta(days=-900), "ended 2026-03-16 09:30 UTC, no grace left"),
    ],
)
def test_a_lease_is_said_in_one_line(before_end: timedelta, text: str) -> None:
    lease = Lease(ENDS, timedelta(days=3))
    assert describe_lease(lease, ENDS - before_end) == text
