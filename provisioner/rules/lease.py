"""Until when a lab lives, what that asks for now, and how far it can be extended."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from provisioner.errors import InputError, RefusedError
from provisioner.model.lab import Desired, Lab, LabState, Lease, WorkItem, WorkStatus
from provisioner.model.spec import LeasePolicy
from provisioner.rules.clock import describe_time

WARN_BEFORE = ((timedelta(days=3), 4), (timedelta(days=1), 8))
"""When the end is announced: so long before it, and no more than that part of the whole time."""
RETRY_AFTER = timedelta(minutes=15)
"""How long after a failed expiry or revival the same is asked for again."""
LAST_SECOND = time(23, 59, 59, tzinfo=UTC)


class LeaseAct(StrEnum):
    """What a lab's lease asks for; all but the first two wait until clocks agree."""

    NOTHING = "nothing"
    WARN = "warn"
    EXPIRE = "expire"  # power off and disconnect
    REVIVE = "revive"  # the lease was extended: connect and power on
    DESTROY = "teardown"


_BY_THE_HOUR: dict[LabState, tuple[LeaseAct, LeaseAct]] = {  # before the end, and after it
    LabState.PROVISIONING: (LeaseAct.WARN, LeaseAct.NOTHING),
    LabState.READY: (LeaseAct.WARN, LeaseAct.EXPIRE),
    LabState.FAILED: (LeaseAct.WARN, LeaseAct.EXPIRE),
    LabState.EXPIRED: (LeaseAct.REVIVE, LeaseAct.NOTHING),
}


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


def extend_lease(lab: Lab, now: datetime, *, days: int | None, until: date | None) -> Lease:
    """Build the longer lease of a lab: so many days more, or to the end of a day (UTC).

    Days count from the lease's end, or from now when it is over. The blueprint's `max_days` count
    from the lab's creation.

    Raises:
        InputError: not exactly one of both was said, or the end would be in the past, earlier than
            it is now, or later than the blueprint allows.
        RefusedError: the lab is being torn down, or is closed.
    """
    refuse_ending(lab)
    if (days is None) == (until is None):
        raise InputError("say either --days or --until")
    latest = lab.created_at.replace(microsecond=0) + timedelta(lab.blueprint.lease.max_days)
    wanted = _add_days(lab, now, days or 0) if until is None else _end_day(until, latest)
    if wanted > latest:
        raise InputError(
            f"lab {lab.lab_id} can be extended until {latest:%Y-%m-%d} at most",
            hint=f"its blueprint allows {lab.blueprint.lease.max_days} days from its creation on "
            f"{lab.created_at:%Y-%m-%d}",
        )
    if wanted <= now:
        raise InputError(f"the lease cannot end on {wanted:%Y-%m-%d}: that is in the past")
    if wanted < lab.lease.ends_at:
        raise InputError(
            f"lab {lab.lab_id} lives until {_say_time(lab.lease.ends_at)} already",
            hint=f"give a later date; to end it now: labctl teardown {lab.lab_id}",
        )
    return Lease(ends_at=wanted, grace_for=lab.lease.grace_for)


def _add_days(lab: Lab, now: datetime, days: int) -> datetime:
    if days < 1:
        raise InputError(f"a lease is not extended by {days} days", hint="give 1 or more")
    more = timedelta(min(days, lab.blueprint.lease.max_days + 1))  # any more is refused as well
    return max(lab.lease.ends_at, now.replace(microsecond=0)) + more


def _end_day(day: date, latest: datetime) -> datetime:
    """Return a day's last second, or `latest` on the last day that is allowed."""
    return latest if day == latest.date() else datetime.combine(day, LAST_SECOND)


def refuse_ending(lab: Lab) -> None:
    """Refuse a lab whose end has begun, or is over. Raises RefusedError."""
    if lab.desired is Desired.ABSENT or lab.state not in _BY_THE_HOUR:
        raise RefusedError(
            f"lab {lab.lab_id} is {lab.state}: its lease can no longer be extended",
            hint="provision it anew when it is gone",
        )


def refuse_expired(lab: Lab) -> None:
    """Refuse a lab that is powered off because its lease has ended. Raises RefusedError."""
    if lab.state is LabState.EXPIRED:
        raise RefusedError(
            f"the lease of lab {lab.lab_id} ended on {_say_time(lab.lease.ends_at)}: it is powered "
            "off",
            hint=f"labctl extend {lab.lab_id} --days 7 brings it back",
        )


def decide_lease(lab: Lab, now: datetime, warned: Collection[str]) -> LeaseAct:
    """Decide what a lab's lease asks for now.

    Args:
        lab: as recorded.
        now: aware UTC.
        warned: the warnings that were made, as `find_warning` said them.
    """
    lease = lab.lease
    if lab.desired is Desired.ABSENT or lab.state not in _BY_THE_HOUR:
        return LeaseAct.NOTHING
    if now >= lease.ends_at + lease.grace_for:
        return LeaseAct.DESTROY
    before, after = _BY_THE_HOUR[lab.state]
    if now >= lease.ends_at:
        return after
    if before is LeaseAct.WARN:
        warning = find_warning(lab, now)
        return LeaseAct.WARN if warning and warning not in warned else LeaseAct.NOTHING
    return before


def find_warning(lab: Lab, now: datetime) -> str | None:
    """Say the newest warning that is due by now: the same words until the next one is."""
    ends_at = lab.lease.ends_at
    lived_for = ends_at - lab.created_at
    before = [min(longest, lived_for / part) for longest, part in WARN_BEFORE]
    due = [one for one in before if now >= ends_at - one]
    if not due:
        return None
    left = describe_time(min(due))
    return (
        f"the lease ends on {_say_time(ends_at)}, in less than {left}; the lab is powered off then"
    )


def must_wait(last: WorkItem | None, now: datetime) -> bool:
    """Tell whether the lab's last work failed so lately that the lease asks for none yet."""
    if last is None or last.ended_at is None or last.status is not WorkStatus.FAILED:
        return False
    asked_by_lease = last.workflow in (LeaseAct.EXPIRE, LeaseAct.REVIVE)
    return asked_by_lease and timedelta() <= now - last.ended_at < RETRY_AFTER


def describe_lease(lab: Lab, now: datetime) -> str:
    """Say in one line until when a lab lives, or what becomes of it. Times are UTC."""
    ends_at = lab.lease.ends_at
    until, destroyed_at = _say_time(ends_at), ends_at + lab.lease.grace_for
    if lab.state not in _BY_THE_HOUR:
        return f"until {until}"
    if now < ends_at:
        today = now.date() == ends_at.date()
        return f"until {until}, " + (
            "ENDS TODAY" if today else f"ends in {describe_time(ends_at - now)}"
        )
    off = "powered off" if lab.state is LabState.EXPIRED else "not powered off yet"
    when = "destroyed on" if now < destroyed_at else "due to be destroyed since"
    return f"OVERDUE since {until}: {off}, {when} {_say_time(destroyed_at)}"


def _say_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
