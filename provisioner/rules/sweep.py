"""Which VM with a mark belongs to nobody any more: the decision of `labctl sweep`, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from provisioner.model.lab import GuestIdentity, Lab
from provisioner.model.observed import ObservedVm, Ownership, Sight
from provisioner.rules.clock import TOLERANCE
from provisioner.rules.receipt import list_doubts_of_sight

GRACE = timedelta(minutes=60)
"""How old an orphan must be: longer than any clone takes."""


class Verdict(StrEnum):
    """What a VM with a mark is to this installation. Only an orphan is ever destroyed."""

    LAB = "lab"
    ORPHAN = "orphan"
    YOUNG = "young"
    AFTER_BACKUP = "younger than the restored store"
    BEFORE_STORE = "older than the store"
    COPY = "copy"
    OTHER = "other installation"
    VOID = "void mark"


NOT_OURS = {
    Ownership.COPY: Verdict.COPY,
    Ownership.OTHER_INSTALLATION: Verdict.OTHER,
    Ownership.VOID: Verdict.VOID,
    Ownership.UNMARKED: Verdict.VOID,
}
ADOPTABLE = frozenset({Verdict.AFTER_BACKUP, Verdict.BEFORE_STORE})


@dataclass(frozen=True)
class Known:
    """What a store knows, as far as it matters here.

    `living` are the guests of labs that are not closed, `closed` those of labs that are. `since`
    is when its first row was written, None when nothing was ever recorded; `restored_at` when the
    backup was made that it was put back from, if it was.
    """

    living: frozenset[GuestIdentity]
    closed: frozenset[GuestIdentity]
    since: datetime | None
    restored_at: datetime | None = None


def judge_vm(vm: ObservedVm, known: Known, vcenter_at: datetime, grace: timedelta) -> Verdict:
    """Judge one VM with a mark.

    A guest is recorded before it is cloned. So a genuine VM that the store never knew is older
    than the store, which was lost, or younger than the backup that it was put back from; else it
    comes from another copy of the state folder.

    Args:
        vm: as vCenter shows it.
        known: what the store knows.
        vcenter_at: vCenter's own time.
        grace: how old an orphan must be; a VM whose age vCenter does not say is young.
    """
    if vm.ownership is not Ownership.OURS or vm.identity is None:
        return NOT_OURS.get(vm.ownership, Verdict.VOID)
    if vm.identity in known.living:
        return Verdict.LAB
    if vm.created_at is None:
        return Verdict.YOUNG
    if vm.identity not in known.closed:
        if known.restored_at and vm.created_at > known.restored_at - TOLERANCE:
            return Verdict.AFTER_BACKUP
        if known.since is None or vm.created_at < known.since:
            return Verdict.BEFORE_STORE
    return Verdict.YOUNG if vcenter_at - vm.created_at < grace else Verdict.ORPHAN


def list_doubts(labs: Iterable[Lab], sight: Sight) -> tuple[str, ...]:
    """List every reason why what vCenter shows may not be all there is, for any of these labs."""
    doubts = [doubt for lab in labs for doubt in list_doubts_of_sight(lab, sight)]
    return tuple(dict.fromkeys(doubts))
