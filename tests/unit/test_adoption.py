from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from provisioner.model.lab import (
    Desired,
    GuestRecord,
    GuestState,
    Lab,
    LabState,
    Lease,
    TemplatePin,
)
from provisioner.model.observed import ObservedNic, ObservedVm, Ownership, PowerState
from provisioner.rules.adoption import (
    FoundLab,
    build_adopted,
    build_closed,
    build_guest,
    find_labs,
)
from provisioner.rules.dossier import build_dossier
from tests.fakes.samples import NOW, make_guests, make_lab, make_site

PIN = TemplatePin("template", "version", "snapshot-1", 1)
ROOT = "[datastore-0] ana/ana.vmdk"
LAB = make_lab("ana-mlops", 1, "workbench", "tracking")


def make_vm(lab: Lab, guest: GuestRecord, **changes: object) -> ObservedVm:
    vm = ObservedVm(
        moref="vm-7",
        name=guest.vm_name,
        instance_uuid=guest.identity.instance_uuid,
        ownership=Ownership.OURS,
        identity=guest.identity,
        power_state=PowerState.ON,
        cpus=2,
        memory_mib=4096,
        disks=(),
        nics=(ObservedNic(4000, "00:50:56:00:00:01", "lab", connected=True),),
        created_at=NOW,
        dossier=build_dossier(lab, replace(guest, pin=PIN)),
        own_disks=(ROOT,),
    )
    return replace(vm, **changes)  # type: ignore[arg-type]


def make_vms(lab: Lab, **changes: object) -> list[ObservedVm]:
    return [make_vm(lab, guest, **changes) for guest in make_guests(lab)]


def find_one(vms: list[ObservedVm]) -> FoundLab:
    (found,), refusals = find_labs(vms)
    assert refusals == ()
    return found


def test_vms_are_grouped_by_lab_and_generation_in_the_blueprints_order() -> None:
    vms = [
        *make_vms(LAB)[::-1],
        *make_vms(make_lab("bob-mlops", 2)),
        *make_vms(make_lab("bob-mlops")),
    ]
    labs, refusals = find_labs(vms)
    assert [(one.lab.lab_id, one.lab.generation) for one in labs] == [
        ("ana-mlops", 1),
        ("bob-mlops", 1),
        ("bob-mlops", 2),
    ]
    assert [one.guest.identity.slot for one in labs[0].guests] == ["workbench", "tracking"]
    assert (labs[0].missing, refusals) == ((), ())
    assert find_one(make_vms(LAB)[1:]).missing == ("workbench",)


def test_the_longest_lease_of_the_dossiers_counts() -> None:
    longer = replace(LAB, lease=Lease(NOW + timedelta(days=40), timedelta(days=3)))
    vms = [make_vms(longer)[0], make_vms(LAB)[1]]
    assert find_one(vms).lab.lease == longer.lease
    assert find_one(vms[::-1]).lab.lease == longer.lease


OTHER = make_guests(make_lab("bob-mlops"))[0]
FOREIGN_SLOT = replace(OTHER, identity=replace(OTHER.identity, lab_id="ana-mlops", slot="spare"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dossier": ""}, "no genuine dossier"),
        ({"dossier": '{"lab": 1}'}, "not one that this labctl knows"),
        ({"dossier": build_dossier(LAB, OTHER)}, "another guest"),
        ({"dossier": build_dossier(make_lab("bob-mlops"), make_guests(LAB)[0])}, "another guest"),
        (
            {"dossier": build_dossier(LAB, FOREIGN_SLOT), "identity": FOREIGN_SLOT.identity},
            "another guest",
        ),
    ],
)
def test_a_vm_that_does_not_say_whose_it_was_is_refused(
    changes: dict[str, object], why: str
) -> None:
    labs, refusals = find_labs([make_vm(LAB, make_guests(LAB)[0], **changes)])
    assert labs == ()
    assert [why in one.why for one in refusals] == [True]


def test_two_vms_of_one_slot_are_refused_both() -> None:
    first = make_guests(LAB)[0]
    second = replace(first, identity=replace(first.identity, instance_uuid="another"))
    labs, refusals = find_labs([make_vm(LAB, first), make_vm(LAB, second)])
    assert labs == ()
    assert ["several" in one.why for one in refusals] == [True, True]


def test_a_guest_is_recorded_as_standing() -> None:
    guest = build_guest(find_one(make_vms(LAB)).guests[0], make_site())
    assert (guest.state, guest.moref, guest.mac) == (
        GuestState.STANDING,
        "vm-7",
        "00:50:56:00:00:01",
    )
    assert (guest.birth_disks, guest.pin) == ((ROOT,), PIN)


@pytest.mark.parametrize("own_disks", [(), (ROOT, "[datastore-0] ana/data.vmdk")])
def test_disks_in_doubt_are_not_recorded_as_born(own_disks: tuple[str, ...]) -> None:
    found = find_one(make_vms(LAB, own_disks=own_disks)).guests[0]
    assert build_guest(found, make_site()).birth_disks == ()


def test_the_guests_own_nic_is_the_one_on_its_first_network() -> None:
    nics = (
        ObservedNic(4000, "mac-1", "sealed", connected=True),
        ObservedNic(4001, "mac-2", "lab", connected=True),
    )
    found = find_one(make_vms(LAB, nics=nics)).guests[0]
    assert build_guest(found, make_site()).mac == "mac-2"
    spec = LAB.blueprint.guests[0].model_copy(update={"networks": ("sealed", "lab")})
    blueprint = LAB.blueprint.model_copy(update={"guests": (spec,)})
    site = make_site(networks={"lab": "/DC0/network/lab", "sealed": "/DC0/network/sealed"})
    found = find_one(make_vms(replace(LAB, blueprint=blueprint), nics=nics)).guests[0]
    assert build_guest(found, site).mac == "mac-1"
    found = find_one(make_vms(LAB, nics=nics)).guests[0]
    unnamed = tuple(replace(nic, network=f"dvportgroup-{nic.device_key}") for nic in nics)
    found = find_one(make_vms(LAB, nics=unnamed)).guests[0]
    assert build_guest(found, make_site()).mac == "mac-1"
    assert build_guest(find_one(make_vms(LAB, nics=())).guests[0], make_site()).mac == ""


OFF = {"power_state": PowerState.OFF}


@pytest.mark.parametrize(
    ("vms", "doubts", "state", "is_ready"),
    [
        (make_vms(LAB), (), LabState.READY, True),
        (make_vms(LAB), ("no key",), LabState.FAILED, False),
        (make_vms(LAB, **OFF), (), LabState.EXPIRED, True),
        (make_vms(LAB, **OFF), ("no key",), LabState.EXPIRED, False),
        ([make_vms(LAB)[0], make_vms(LAB, **OFF)[1]], (), LabState.READY, True),
        (make_vms(LAB)[:1], (), LabState.FAILED, False),
        (make_vms(LAB, **OFF)[:1], (), LabState.FAILED, False),
    ],
)
def test_a_lab_is_recorded_as_far_as_it_is_seen_to_be(
    vms: list[ObservedVm], doubts: tuple[str, ...], state: LabState, *, is_ready: bool
) -> None:
    lab = build_adopted(find_one(vms), doubts, 5000, NOW)
    assert (lab.state, lab.desired, lab.event_key) == (state, Desired.PRESENT, 5000)
    assert (lab.ready_at is not None, not lab.note) == (is_ready, is_ready)
    assert (lab.hire, lab.lease, lab.created_at) == (LAB.hire, LAB.lease, LAB.created_at)


def test_a_lab_that_is_due_to_be_destroyed_gets_its_grace_once_more() -> None:
    found = find_one(make_vms(LAB))
    due = LAB.lease.ends_at + LAB.lease.grace_for
    assert build_adopted(found, (), 1, due - timedelta(seconds=1)).lease == LAB.lease
    lease = build_adopted(found, (), 1, due).lease
    assert lease == Lease(due.replace(microsecond=0), LAB.lease.grace_for)


def test_an_earlier_generation_is_recorded_as_closed() -> None:
    lab = build_closed(find_one(make_vms(LAB)), NOW)
    assert (lab.state, lab.desired, lab.closed_at) == (LabState.FORGOTTEN, Desired.ABSENT, NOW)
