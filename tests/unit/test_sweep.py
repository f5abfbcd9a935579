from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import ObservedVm, Ownership, PowerState, Sight
from provisioner.rules.sweep import Known, Verdict, judge_vm, list_doubts
from tests.fakes.samples import NOW, VCENTER, make_lab

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
LIVING = GuestIdentity("ana-mlops", 1, "workbench", "uuid-living")
CLOSED = GuestIdentity("bob-mlops", 1, "workbench", "uuid-closed")
NEVER = GuestIdentity("eve-mlops", 1, "workbench", "uuid-never")
KNOWN = Known(frozenset({LIVING}), frozenset({CLOSED}), since=NOW - 100 * HOUR)
RESTORED = replace(KNOWN, restored_at=NOW - 10 * HOUR)
NEW = Known(frozenset(), frozenset(), since=None)
SIGHT = Sight(VCENTER, 4711, (), ())


def make_vm(
    identity: GuestIdentity | None,
    age: timedelta | None,
    ownership: Ownership = Ownership.OURS,
) -> ObservedVm:
    return ObservedVm(
        moref="vm-1",
        name="ana-mlops-workbench",
        instance_uuid=identity.instance_uuid if identity else "uuid-other",
        ownership=ownership,
        identity=identity,
        power_state=PowerState.ON,
        cpus=2,
        memory_mib=4096,
        disks=(),
        nics=(),
        created_at=None if age is None else NOW - age,
    )


OLD = 2 * HOUR
CASES = [
    (LIVING, OLD, KNOWN, Verdict.LAB),
    (LIVING, None, KNOWN, Verdict.LAB),
    (LIVING, OLD, RESTORED, Verdict.LAB),
    (CLOSED, OLD, KNOWN, Verdict.ORPHAN),
    (CLOSED, HOUR, KNOWN, Verdict.ORPHAN),
    (CLOSED, HOUR - MINUTE, KNOWN, Verdict.YOUNG),
    (CLOSED, -MINUTE, KNOWN, Verdict.YOUNG),  # vCenter's clock went back
    (CLOSED, None, KNOWN, Verdict.YOUNG),
    (CLOSED, OLD, RESTORED, Verdict.ORPHAN),
    (NEVER, OLD, KNOWN, Verdict.ORPHAN),
    (NEVER, MINUTE, KNOWN, Verdict.YOUNG),
    (NEVER, None, KNOWN, Verdict.YOUNG),
    (NEVER, 101 * HOUR, KNOWN, Verdict.BEFORE_STORE),
    (NEVER, OLD, NEW, Verdict.BEFORE_STORE),
    (NEVER, OLD, RESTORED, Verdict.AFTER_BACKUP),
    (NEVER, 10 * HOUR, RESTORED, Verdict.AFTER_BACKUP),  # the clocks may differ by so much
    (NEVER, 10 * HOUR + MINUTE, RESTORED, Verdict.ORPHAN),
    (NEVER, 100 * HOUR, KNOWN, Verdict.ORPHAN),
    (NEVER, 11 * HOUR, RESTORED, Verdict.ORPHAN),
    (NEVER, 101 * HOUR, RESTORED, Verdict.BEFORE_STORE),
    (replace(LIVING, instance_uuid="uuid-2"), OLD, KNOWN, Verdict.ORPHAN),
    (replace(LIVING, generation=2), OLD, RESTORED, Verdict.AFTER_BACKUP),
    (replace(LIVING, slot="tracking"), OLD, KNOWN, Verdict.ORPHAN),
]


@pytest.mark.parametrize(("identity", "age", "known", "verdict"), CASES)
def test_a_genuine_vm_is_judged_by_the_store_and_its_age(
    identity: GuestIdentity, age: timedelta | None, known: Known, verdict: Verdict
) -> None:
    assert judge_vm(make_vm(identity, age), known, NOW, HOUR) is verdict


@pytest.mark.parametrize("identity", [LIVING, CLOSED, NEVER, None])
@pytest.mark.parametrize("known", [KNOWN, RESTORED, NEW])
@pytest.mark.parametrize(
    ("ownership", "verdict"),
    [
        (Ownership.COPY, Verdict.COPY),
        (Ownership.OTHER_INSTALLATION, Verdict.OTHER),
        (Ownership.VOID, Verdict.VOID),
        (Ownership.UNMARKED, Verdict.VOID),
    ],
)
def test_a_vm_that_is_not_ours_is_never_an_orphan(
    identity: GuestIdentity | None, known: Known, ownership: Ownership, verdict: Verdict
) -> None:
    assert judge_vm(make_vm(identity, 1000 * HOUR, ownership), known, NOW, HOUR) is verdict


def test_the_grace_is_what_was_asked_for() -> None:
    vm = make_vm(CLOSED, MINUTE)
    assert judge_vm(vm, KNOWN, NOW, MINUTE) is Verdict.ORPHAN
    assert judge_vm(vm, KNOWN, NOW, 2 * MINUTE) is Verdict.YOUNG


def test_what_is_seen_is_doubted_for_each_lab_and_each_reason_is_said_once() -> None:
    labs = (make_lab("ana-mlops"), make_lab("bob-mlops"))
    assert list_doubts(labs, SIGHT) == ()
    blind = replace(SIGHT, vcenter_uuid="other", event_key=1, missing_privileges=("System.Read",))
    doubts = list_doubts(labs, blind)
    assert len(doubts) == 3
    assert ["another" in doubts[0], "rolled back" in doubts[1], "missing" in doubts[2]] == [
        True
    ] * 3
