"""The contract of the Hypervisor port, on vSphere's API and in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from provisioner.errors import (
    GuestUnreachableError,
    NameTakenError,
    NotFoundError,
    NotOwnedError,
    VmGoneError,
)
from provisioner.model.observed import DestroyResult, Evidence, Ownership, PowerState
from provisioner.ports import Hypervisor
from provisioner.rules.mark import MARK_KEY
from tests.contract.guests import (
    ADDRESS_S,
    GUESTINFO,
    OURS,
    THEIRS,
    Guest,
    clone,
    make_identity,
    make_order,
)
from tests.contract.hands import PLACE
from tests.contract.vcenters import Vcenter

# -- the site ------------------------------------------------------------------------------------


def test_a_site_is_observed(hypervisor: Hypervisor, guest: Guest) -> None:
    site = hypervisor.observe_site()
    assert site.problems == ()
    assert site.vm_names == (guest.vm.name,)
    assert {store.name: store.usable for store in site.datastores} == {
        "datastore-0": True,
        "datastore-1": True,
    }
    assert all(400 < store.free_gib <= 500 for store in site.datastores)
    (template,) = site.templates
    assert (template.fit, template.disk_gib, template.problem) == (True, 32.0, "")


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("networks", {"lab": "/DC0/network/gone"}, "networks.lab"),
        ("placement", {"folder": "/DC0/vm/gone"}, "placement.folder"),
        ("placement", {"resource_pool": "/DC0/host/gone"}, "placement.resource_pool"),
        ("placement", {"datacenter": "/DC9"}, "placement.datacenter"),
        ("placement", {"datastores": ["datastore-9"]}, "datastore-9"),
        (
            "vm_templates",
            {"debian-13": {"path": "/DC0/vm/templates/gone", "snapshot": "labctl-base"}},
            "vm_templates.debian-13",
        ),
    ],
)
def test_a_setting_that_vcenter_does_not_confirm_is_a_problem(
    vcenter: Vcenter, setting: str, value: dict[str, object], named: str
) -> None:
    known = PLACE["placement"] if setting == "placement" else {}
    assert isinstance(known, dict)
    broken = vcenter.connect(OURS, **{setting: {**known, **value}})
    problems = broken.observe_site().problems
    assert [problem for problem in problems if named in problem], problems
    assert broken.check_sight().missing_objects


@pytest.mark.needs("newest event")
def test_sight_is_proved_and_events_grow(hypervisor: Hypervisor) -> None:
    before = hypervisor.check_sight()
    assert (before.missing_privileges, before.missing_objects) == ((), ())
    clone(hypervisor)
    after = hypervisor.check_sight()
    assert after.vcenter_uuid == before.vcenter_uuid == hypervisor.observe_site().vcenter_uuid
    assert after.event_key > before.event_key


# -- coming --------------------------------------------------------------------------------------


def test_a_clone_is_whole_and_off(hypervisor: Hypervisor, vcenter: Vcenter) -> None:
    identity, tasks = make_identity(), list[str]()
    order = make_order(hypervisor, identity, networks=("sealed", "lab"))
    vm = hypervisor.ensure_clone(order, tasks.append)
    assert (vm.ownership, vm.identity) == (Ownership.OURS, identity)
    assert vm.instance_uuid == identity.instance_uuid
    assert (vm.name, vm.cpus, vm.memory_mib) == (order.vm_name, 3, 6144)
    assert vm.power_state is PowerState.OFF
    assert [nic.network for nic in vm.nics] == ["sealed", "lab"]
    assert len({nic.mac for nic in vm.nics}) == 2
    (disk,) = vm.disks
    assert disk.path.startswith("[datastore-1] ")
    assert disk.path in vcenter.list_files()
    assert len(tasks) == 1
    assert not vcenter.is_on(vm.moref)
    options = vcenter.get_options(vm.moref)
    assert {key: options[key] for key, _ in GUESTINFO} == dict(GUESTINFO)
    assert identity.instance_uuid in options[MARK_KEY]


def test_cloning_again_adopts(hypervisor: Hypervisor, vcenter: Vcenter, guest: Guest) -> None:
    tasks = list[str]()
    again = hypervisor.ensure_clone(make_order(hypervisor, guest.identity), tasks.append)
    assert again == guest.vm
    assert tasks == []
    assert vcenter.list_names() == {guest.vm.name}


def test_guests_are_cloned_side_by_side(hypervisor: Hypervisor) -> None:
    identities = [make_identity(f"node{number}") for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        guests = list(pool.map(lambda one: clone(hypervisor, one), identities))
    assert [guest.vm.identity for guest in guests] == identities
    assert len({guest.record.mac for guest in guests}) == 6


def test_a_taken_name_is_refused(hypervisor: Hypervisor, vcenter: Vcenter) -> None:
    order = make_order(hypervisor, make_identity())
    planted = vcenter.plant(order.vm_name)
    with pytest.raises(NameTakenError):
        hypervisor.ensure_clone(order, lambda _: None)
    assert hypervisor.find_vm(order.identity) is None
    assert MARK_KEY not in vcenter.get_options(planted)


def test_an_unknown_datastore_is_refused(hypervisor: Hypervisor, vcenter: Vcenter) -> None:
    order = make_order(hypervisor, make_identity(), datastore="datastore-9")
    with pytest.raises(NotFoundError, match="datastore-9"):
        hypervisor.ensure_clone(order, lambda _: None)
    assert vcenter.list_names() == set()


def test_what_is_not_there_is_not_found(hypervisor: Hypervisor) -> None:
    identity = make_identity()
    assert hypervisor.find_vm(identity) is None
    with pytest.raises(VmGoneError):
        hypervisor.ensure_powered_on(identity)


# -- running -------------------------------------------------------------------------------------


@pytest.mark.parametrize("grace_s", [0.0, 10.0])
@pytest.mark.needs("addresses")
def test_power_is_brought_to_a_state(vcenter: Vcenter, guest: Guest, grace_s: float) -> None:
    moref, identity = guest.vm.moref, guest.identity
    guest.hypervisor.ensure_powered_off(identity, grace_s=grace_s)
    assert not vcenter.is_on(moref)
    for _ in range(2):
        guest.hypervisor.ensure_powered_on(identity)
        assert vcenter.is_on(moref)
    guest.hypervisor.wait_for_address(identity, guest.record.mac, ADDRESS_S)
    for _ in range(2):
        guest.hypervisor.ensure_powered_off(identity, grace_s=grace_s)
        assert not vcenter.is_on(moref)


@pytest.mark.needs("addresses")
def test_the_address_is_the_one_of_our_nic(hypervisor: Hypervisor) -> None:
    identity = make_identity()
    order = make_order(hypervisor, identity, networks=("lab", "sealed"))
    vm = hypervisor.ensure_clone(order, lambda _: None)
    hypervisor.ensure_powered_on(identity)
    found = [hypervisor.wait_for_address(identity, nic.mac, ADDRESS_S) for nic in vm.nics]
    assert all(address.startswith("198.18.") for address in found)
    assert len(set(found)) == 2


def test_no_address_in_time_means_that_the_guest_is_not_reached(guest: Guest) -> None:
    with pytest.raises(GuestUnreachableError):
        guest.hypervisor.wait_for_address(guest.identity, guest.record.mac, 0.2)
    guest.hypervisor.ensure_powered_on(guest.identity)
    with pytest.raises(GuestUnreachableError):
        guest.hypervisor.wait_for_address(guest.identity, "02:42:ac:11:00:99", 0.2)


def test_guestinfo_is_heard(vcenter: Vcenter, guest: Guest) -> None:
    key = "guestinfo.labctl.hostkey"
    with pytest.raises(GuestUnreachableError):
        guest.hypervisor.wait_for_guestinfo(guest.identity, key, 0.2)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(guest.hypervisor.wait_for_guestinfo, guest.identity, key, ADDRESS_S)
        vcenter.set_option(guest.vm.moref, key, "nonce ssh-ed25519 AAAA")
        assert heard.result() == "nonce ssh-ed25519 AAAA"


# -- whose it is ---------------------------------------------------------------------------------


def try_everything(guest: Guest, hypervisor: Hypervisor) -> None:
    """Try every mutating verb; each must be refused."""
    identity = guest.identity
    for verb in (
        lambda: hypervisor.ensure_clone(make_order(hypervisor, identity), lambda _: None),
        lambda: hypervisor.ensure_powered_on(identity),
        lambda: hypervisor.ensure_powered_off(identity, grace_s=0),
        lambda: hypervisor.destroy_vm(guest.record),
    ):
        with pytest.raises(NotOwnedError):
            verb()
    assert hypervisor.find_vm(identity) is None


@pytest.mark.parametrize("mark", ["", "no mark", '{"v":1}'])
def test_without_its_genuine_mark_a_vm_is_not_touched(
    vcenter: Vcenter, guest: Guest, mark: str
) -> None:
    guest.hypervisor.ensure_powered_on(guest.identity)
    vcenter.set_option(guest.vm.moref, MARK_KEY, mark)
    try_everything(guest, guest.hypervisor)
    assert vcenter.is_on(guest.vm.moref)
    assert guest.record.birth_disks[0] in vcenter.list_files()


def test_another_installations_vm_is_not_touched(vcenter: Vcenter, guest: Guest) -> None:
    other = vcenter.connect(THEIRS)
    try_everything(guest, other)
    (seen,) = other.list_marked_vms()
    assert seen.ownership is Ownership.OTHER_INSTALLATION
    assert other.collect_evidence(guest.identity.lab_id, ())[-1].gone is True
    other.close()
    assert guest.hypervisor.find_vm(guest.identity) == guest.vm


def test_another_guest_of_ours_is_not_touched(guest: Guest) -> None:
    stranger = replace(guest.identity, slot="tracking")
    with pytest.raises(NotOwnedError):
        guest.hypervisor.destroy_vm(replace(guest.record, identity=stranger))
    assert guest.hypervisor.find_vm(stranger) is None


@pytest.mark.needs("inherited options")
def test_a_copy_by_hand_is_seen_and_stays(vcenter: Vcenter, guest: Guest) -> None:
    copied = vcenter.copy(guest.vm.moref, "copy-of-it")
    vcenter.plant("ana-mlops-workbench-2")
    seen = {vm.moref: vm.ownership for vm in guest.hypervisor.list_marked_vms()}
    assert seen == {guest.vm.moref: Ownership.OURS, copied: Ownership.COPY}
    assert guest.destroy() is DestroyResult.DESTROYED
    assert vcenter.list_names() == {"copy-of-it", "ana-mlops-workbench-2"}
    assert set(guest.ask().values()) == {True}


# -- going ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [True, False])
def test_destroying_leaves_nothing(vcenter: Vcenter, guest: Guest, on: bool) -> None:  # noqa: FBT001 - a case
    before = vcenter.list_files()
    other = clone(guest.hypervisor, make_identity("tracking"))
    if on:
        guest.hypervisor.ensure_powered_on(guest.identity)
    assert set(guest.ask().values()) == {False}
    assert guest.destroy() is DestroyResult.DESTROYED
    assert vcenter.list_names() == {other.vm.name}
    assert not {path for path in before if guest.vm.name in path} & vcenter.list_files()
    rows = guest.ask()
    assert rows.pop("mark") is False, "its other guest still stands"
    assert set(rows.values()) == {True}
    assert guest.destroy() is DestroyResult.ALREADY_GONE
    assert other.destroy() is DestroyResult.DESTROYED
    assert set(guest.ask().values()) == {True}


@pytest.mark.needs("spared disks")
def test_a_foreign_disk_stops_it_before_anything_is_touched(vcenter: Vcenter, guest: Guest) -> None:
    guest.hypervisor.ensure_powered_on(guest.identity)
    foreign = vcenter.attach_disk(guest.vm.moref)
    outcome = guest.hypervisor.destroy_vm(guest.record)
    assert outcome.result is DestroyResult.RESIDUE
    assert foreign in outcome.detail
    assert vcenter.is_on(guest.vm.moref)
    assert {foreign, *guest.record.birth_disks} <= vcenter.list_files()
    vcenter.detach_disk(guest.vm.moref, foreign)
    assert guest.destroy() is DestroyResult.DESTROYED
    assert foreign in vcenter.list_files()


def test_without_a_birth_record_every_disk_is_foreign(vcenter: Vcenter, guest: Guest) -> None:
    unrecorded = replace(guest.record, birth_disks=(), pin=None)
    assert guest.hypervisor.destroy_vm(unrecorded).result is DestroyResult.RESIDUE
    assert vcenter.list_names() == {guest.vm.name}


@pytest.mark.needs("child disks")
def test_its_own_snapshots_do_not_stop_it(vcenter: Vcenter, guest: Guest) -> None:
    for name in ("before", "after"):
        vcenter.snapshot(guest.vm.moref, name)
    seen = guest.hypervisor.find_vm(guest.identity)
    assert seen is not None
    assert seen.snapshots == ("before", "after")
    assert seen.disks[0].path not in guest.record.birth_disks
    assert guest.destroy() is DestroyResult.DESTROYED
    assert not [path for path in vcenter.list_files() if guest.vm.name in path]


def test_a_foreign_disk_that_only_a_snapshot_holds_stops_it(vcenter: Vcenter, guest: Guest) -> None:
    foreign = vcenter.attach_disk(guest.vm.moref)
    vcenter.snapshot(guest.vm.moref, "with it")
    seen = guest.hypervisor.find_vm(guest.identity)
    assert seen is not None
    vcenter.detach_disk(guest.vm.moref, seen.disks[-1].path)
    assert guest.destroy() is DestroyResult.RESIDUE
    assert foreign in vcenter.list_files()


def test_what_went_behind_our_back_is_gone(vcenter: Vcenter, guest: Guest) -> None:
    vcenter.remove(guest.vm.moref)
    with pytest.raises(VmGoneError):
        guest.hypervisor.ensure_powered_on(guest.identity)
    with pytest.raises(VmGoneError):
        guest.hypervisor.wait_for_address(guest.identity, guest.record.mac, ADDRESS_S)
    assert guest.destroy() is DestroyResult.ALREADY_GONE
    assert set(guest.ask().values()) == {True}


def test_a_vm_that_goes_while_it_is_waited_for_is_gone(vcenter: Vcenter, guest: Guest) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            guest.hypervisor.wait_for_guestinfo, guest.identity, "guestinfo.never", ADDRESS_S
        )
        vcenter.remove(guest.vm.moref)
        with pytest.raises(VmGoneError):
            waiting.result()


def test_a_disk_left_behind_is_evidence(vcenter: Vcenter, guest: Guest) -> None:
    vcenter.unregister(guest.vm.moref)
    rows = guest.ask()
    assert rows["disk"] is False
    assert rows["uuid"] is rows["moref"] is rows["name"] is rows["mark"] is True


def test_files_of_a_clone_that_was_never_recorded_leave_a_doubt(
    vcenter: Vcenter, guest: Guest
) -> None:
    guest.record = replace(guest.record, birth_disks=(), moref="")
    vcenter.unregister(guest.vm.moref)
    rows = guest.hypervisor.collect_evidence("ana-mlops", (guest.record,))
    folders = {row.name: row.gone for row in rows if row.kind == "folder"}
    assert set(folders) == {f"[datastore-{n}] {guest.record.vm_name}" for n in (0, 1)}
    assert set(folders.values()) == {None, True}
    assert all(row.gone for row in rows if row.kind != "folder")


def test_evidence_says_when_and_what_was_answered(guest: Guest) -> None:
    rows: tuple[Evidence, ...] = guest.hypervisor.collect_evidence("ana-mlops", (guest.record,))
    assert all(row.answer and row.asked_at.tzinfo for row in rows)
    assert {row.uuid for row in rows} == {guest.identity.instance_uuid, ""}
    assert sorted(row.asked_at for row in rows) == [row.asked_at for row in rows]


def test_closing_never_raises(hypervisor: Hypervisor) -> None:
    hypervisor.observe_site()
    hypervisor.close()
    hypervisor.close()
