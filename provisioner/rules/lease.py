"""Until when a lab lives."""

from __future__ import annotations

from datetime import datetime, timedelta

from provisioner.errors import InputError
from provisioner.model.lab import Lease
from provisioner.model.spec import LeasePolicy

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
FEW = 2


def build_lease(policy: LeasePolicy, days: int | None, now: datetime) -> Lease:
    """Build the lease of a lab that begins now.

    Args:
        policy: the blueprint's.
        days: what IT asked for; None means the policy's default.
        now: aware UTC.

    Raises:
        InputError: the policy does not allow that many days.
    """
    wanted = policy.default_days if days is None else days
    if not 1 <= wanted <= policy.max_days:
        raise InputError(
            f"a lease of {wanted} days is not allowed",
            hint=f"this blueprint allows 1 to {policy.max_days} days, {policy.default_days} "
            "when nothing is said",
        )
    ends_at = now.replace(microsecond=0) + timedelta(days=wanted)
    return Lease(ends_at=ends_at, grace_for=timedelta(days=policy.grace_days))


def describe_lease(lease: Lease, now: datetime) -> str:
    """Say in one line until when a lab lives and how long that is. Times are UTC."""
    until = f"{lease.ends_at:%Y-%m-%d %H:%M} UTC"
    if now < lease.ends_at:
        return f"until {until}, {_describe_time(lease.ends_at - now)} left"
    rescue_until = lease.ends_at + lease.grace_for
    if now < rescue_until:
        return f"ended {until}, {_describe_time(rescue_until - now)} of grace left"
    return f"ended {until}, no grace left"


def _describe_time(time: timedelta) -> str:
    """Say a time in the unit that fits, never more than there is."""
    if time >= FEW * DAY:
        return f"{time // DAY} days"
    if time >= FEW * HOUR:
        return f"{time // HOUR} hours"
    return f"{time // timedelta(minutes=1)} minutes"
