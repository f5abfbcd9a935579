"""The contract of the Hypervisor port while people work in vCenter too, on every kind of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from provisioner.errors import (
    NotFoundError,
    NotOwnedError,
    TemplateChangedError,
    VmGoneError,
    VsphereUnavailableError,
)
from provisioner.model.observed import (
    Connection,
    DestroyResult,
    ObservedVm,
    Ownership,
    PowerState,
)
from provisioner.ports import Hypervisor
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY
from provisioner.vsphere.session import Limits
from tests.contract.guests import OURS, THEIRS, Guest, clone, make_identity, make_order
from tests.contract.hands import PLACE
from tests.contract.vcenters import Vcenter

DOSSIER = 'hire: "ana@example.com"\nlease_until: 2026-03-16'


def see(guest: Guest) -> ObservedVm:
    vm = guest.hypervisor.find_vm(guest.identity)
    assert vm is not None
    return vm


# -- clock and template --------------------------------------------------------------------------


def test_the_clock_is_vcenters_and_aware(hypervisor: Hypervisor) -> None:
    shown = hypervisor.read_clock()
    assert shown.tzinfo is UTC
    assert abs(shown - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_pin_stays_while_the_template_does(hypervisor: Hypervisor, vcenter: Vcenter) -> None:
    pin = hypervisor.pin_template("debian-13")
    clone(hypervisor)
    assert hypervisor.pin_template("debian-13") == pin
    assert (pin.disk_count, bool(pin.instance_uuid), bool(pin.snapshot)) == (1, True, True)
    vcenter.change_template()
    assert hypervisor.pin_template("debian-13") != pin


def test_a_template_that_is_not_there_is_not_pinned(vcenter: Vcenter) -> None:
    gone = {"debian-13": {"path": "/DC0/vm/templates/gone", "snapshot": "labctl-base"}}
    with pytest.raises(NotFoundError):
        vcenter.connect(OURS, vm_templates=gone).pin_template("debian-13")


@pytest.mark.parametrize("field", ["instance_uuid", "change_version", "snapshot"])
def test_another_template_than_the_pinned_one_is_not_cloned(
    hypervisor: Hypervisor, vcenter: Vcenter, field: str
) -> None:
    order = make_order(hypervisor, make_identity())
    changes: dict[str, Any] = {field: "another"}
    other = replace(order, pin=replace(order.pin, **changes))
    with pytest.raises(TemplateChangedError):
        hypervisor.ensure_clone(other, lambda _: None)
    assert vcenter.list_names() == set()
    assert hypervisor.ensure_clone(order, lambda _: None).identity == order.identity


def test_what_stands_is_adopted_whatever_became_of_the_template(
    vcenter: Vcenter, guest: Guest
) -> None:
    order = make_order(guest.hypervisor, guest.identity)
    vcenter.change_template()
    assert guest.hypervisor.ensure_clone(order, lambda _: None) == guest.vm
    new = replace(order, identity=make_identity("tracking"), vm_name="ana-mlops-tracking")
    with pytest.raises(TemplateChangedError):
        guest.hypervisor.ensure_clone(new, lambda _: None)


# -- the dossier ---------------------------------------------------------------------------------


def test_a_dossier_is_born_with_its_guest_and_can_be_written_anew(hypervisor: Hypervisor) -> None:
    guest = clone(hypervisor, dossier=DOSSIER)
    assert guest.vm.dossier == DOSSIER
    for text in ("another", "another", ""):
        hypervisor.write_dossier(guest.identity, text)
        assert see(guest).dossier == text
    assert replace(see(guest), dossier=DOSSIER) == guest.vm, "nothing else changed"


@pytest.mark.needs("inherited options")
def test_a_dossier_counts_for_its_own_guest_only(vcenter: Vcenter, hypervisor: Hypervisor) -> None:
    first = clone(hypervisor, dossier=DOSSIER)
    second = clone(hypervisor, make_identity("tracking"))
    value = vcenter.get_options(first.vm.moref)[DOSSIER_KEY]
    vcenter.set_option(second.vm.moref, DOSSIER_KEY, value)
    assert see(second).dossier == ""
    copied = vcenter.copy(first.vm.moref, "copy")
    dossiers = {vm.moref: vm.dossier for vm in hypervisor.list_marked_vms()}
    assert dossiers == {first.vm.moref: DOSSIER, second.vm.moref: "", copied: ""}
    assert {vm.dossier for vm in vcenter.connect(THEIRS).list_marked_vms()} == {""}
    vcenter.set_option(first.vm.moref, DOSSIER_KEY, value[:-1])
    assert see(first).dossier == ""


def test_without_its_mark_a_vm_gets_no_dossier(vcenter: Vcenter, guest: Guest) -> None:
    vcenter.set_option(guest.vm.moref, MARK_KEY, "no mark")
    with pytest.raises(NotOwnedError):
        guest.hypervisor.write_dossier(guest.identity, DOSSIER)
    assert DOSSIER_KEY not in vcenter.get_options(guest.vm.moref)


# -- networks ------------------------------------------------------------------------------------


def list_links(guest: Guest) -> list[bool]:
    return [nic.connected for nic in see(guest).nics]


def test_networks_are_cut_and_connected_again(hypervisor: Hypervisor) -> None:
    guest = clone(hypervisor, networks=("lab", "sealed"))
    hypervisor.ensure_powered_on(guest.identity)
    before = see(guest)
    assert list_links(guest) == [True, True]
    for connected in (False, False, True, True):
        hypervisor.ensure_networks(guest.identity, connected=connected)
        assert list_links(guest) == [connected, connected]
    assert see(guest) == before, "MACs and portgroups too"


def test_networks_that_are_cut_stay_so_at_the_next_power_on(guest: Guest) -> None:
    hypervisor, identity = guest.hypervisor, guest.identity
    hypervisor.ensure_networks(identity, connected=False)
    hypervisor.ensure_powered_on(identity)
    assert list_links(guest) == [False]
    hypervisor.ensure_powered_off(identity, grace_s=0)
    hypervisor.ensure_networks(identity, connected=True)
    assert list_links(guest) == [False], "a VM that is off is connected to nothing"
    hypervisor.ensure_powered_on(identity)
    assert list_links(guest) == [True]


# -- what people do ------------------------------------------------------------------------------


def test_what_vcenter_says_of_a_vm_is_observed(guest: Guest) -> None:
    vm, placement = guest.vm, PLACE["placement"]
    assert isinstance(placement, dict)
    assert vm.folder == placement["folder"]
    assert vm.created_at is not None
    assert vm.created_at.tzinfo is UTC
    assert abs(vm.created_at - guest.hypervisor.read_clock()) < timedelta(minutes=1)
    assert vm.connection is Connection.CONNECTED
    assert "Destroy_Task" not in vm.disabled_methods


def test_a_renamed_vm_is_the_same_guest(vcenter: Vcenter, guest: Guest) -> None:
    vcenter.rename(guest.vm.moref, "bo-of-somebody")
    assert see(guest) == replace(guest.vm, name="bo-of-somebody")
    order = make_order(guest.hypervisor, guest.identity)
    assert guest.hypervisor.ensure_clone(order, lambda _: None).moref == guest.vm.moref
    assert guest.ask() == {
        "uuid": False,
        "moref": False,
        "name": True,
        "disk": False,
        "mark": False,
    }
    assert guest.destroy() is DestroyResult.DESTROYED
    assert set(guest.ask().values()) == {True}


def test_a_vm_moved_to_another_folder_is_the_same_guest(vcenter: Vcenter, guest: Guest) -> None:
    elsewhere = "/DC0/vm/elsewhere"
    vcenter.move(guest.vm.moref, elsewhere)
    assert see(guest) == replace(guest.vm, folder=elsewhere)
    assert [vm.folder for vm in guest.hypervisor.list_marked_vms()] == [elsewhere]
    assert guest.ask()["uuid"] is guest.ask()["mark"] is False
    assert guest.destroy() is DestroyResult.DESTROYED
    assert set(guest.ask().values()) == {True}


@pytest.mark.parametrize(
    "connection",
    [
        Connection.DISCONNECTED,
        Connection.ORPHANED,
        pytest.param(Connection.INACCESSIBLE, marks=pytest.mark.needs("unreadable VMs")),
    ],
)
def test_a_vm_that_vcenter_has_lost_is_residue_with_a_remedy(
    vcenter: Vcenter, guest: Guest, connection: Connection
) -> None:
    vcenter.lose(guest.vm.moref, connection)
    if connection is Connection.INACCESSIBLE:
        with pytest.raises(VsphereUnavailableError, match="inaccessible"):
            see(guest)
    else:
        assert see(guest).connection is connection
    outcome = guest.hypervisor.destroy_vm(guest.record)
    assert outcome.result is DestroyResult.RESIDUE
    assert f"it is {connection}" in outcome.detail
    assert guest.record.birth_disks[0] in vcenter.list_files()
    vcenter.lose(guest.vm.moref, Connection.CONNECTED)
    assert guest.destroy() is DestroyResult.DESTROYED


def test_a_vm_under_backup_is_residue_once_it_was_waited_for(
    vcenter: Vcenter, guest: Guest
) -> None:
    vcenter.disable(guest.vm.moref, "Destroy_Task")
    assert "Destroy_Task" in see(guest).disabled_methods
    hasty = vcenter.connect_within(Limits(backup_s=0.2), OURS)
    outcome = hasty.destroy_vm(guest.record)
    assert outcome.result is DestroyResult.RESIDUE
    assert "Destroy_Task" in outcome.detail
    assert vcenter.list_names() == {guest.vm.name}
    vcenter.disable(guest.vm.moref)
    assert guest.destroy() is DestroyResult.DESTROYED


@pytest.mark.parametrize("wanted", [PowerState.ON, PowerState.OFF])
def test_a_suspended_vm_is_brought_to_a_state(
    vcenter: Vcenter, guest: Guest, wanted: PowerState
) -> None:
    hypervisor, identity = guest.hypervisor, guest.identity
    hypervisor.ensure_powered_on(identity)
    vcenter.suspend(guest.vm.moref)
    assert see(guest).power_state is PowerState.SUSPENDED
    if wanted is PowerState.ON:
        hypervisor.ensure_powered_on(identity)
    else:
        hypervisor.ensure_powered_off(identity, grace_s=5)
    assert see(guest).power_state is wanted


def test_a_suspended_vm_is_destroyed(vcenter: Vcenter, guest: Guest) -> None:
    guest.hypervisor.ensure_powered_on(guest.identity)
    vcenter.suspend(guest.vm.moref)
    assert guest.destroy() is DestroyResult.DESTROYED
    assert vcenter.list_names() == set()


def test_a_vm_that_somebody_removed_is_gone_for_every_verb(vcenter: Vcenter, guest: Guest) -> None:
    vcenter.remove(guest.vm.moref)
    hypervisor, identity = guest.hypervisor, guest.identity
    for verb in (
        lambda: hypervisor.ensure_powered_off(identity, grace_s=5),
        lambda: hypervisor.ensure_networks(identity, connected=False),
        lambda: hypervisor.write_dossier(identity, DOSSIER),
    ):
        with pytest.raises(VmGoneError):
            verb()


@pytest.mark.needs("linked clones")
def test_birth_disks_that_were_never_recorded_are_known_by_their_folder(
    vcenter: Vcenter, guest: Guest
) -> None:
    other = clone(guest.hypervisor, make_identity("tracking"))
    vcenter.snapshot(guest.vm.moref, "before")
    unrecorded = replace(guest.record, birth_disks=())
    assert guest.hypervisor.destroy_vm(unrecorded).result is DestroyResult.DESTROYED
    assert vcenter.list_names() == {other.vm.name}
    assert other.vm.disks[0].path in vcenter.list_files()


def test_without_a_birth_record_a_disk_too_many_stops_it(vcenter: Vcenter, guest: Guest) -> None:
    foreign = vcenter.attach_disk(guest.vm.moref)
    unrecorded = replace(guest.record, birth_disks=())
    outcome = guest.hypervisor.destroy_vm(unrecorded)
    assert outcome.result is DestroyResult.RESIDUE
    assert foreign in outcome.detail
    assert {foreign, *guest.record.birth_disks} <= vcenter.list_files()


def test_destroying_a_clone_leaves_the_template_and_its_other_clones(
    vcenter: Vcenter, guest: Guest
) -> None:
    others = [clone(guest.hypervisor, make_identity(slot)) for slot in ("one", "two")]
    before = vcenter.list_files()
    assert guest.destroy() is DestroyResult.DESTROYED
    gone = {path for path in before if guest.vm.name in path}
    assert vcenter.list_files() == before - gone
    assert all(see(other) == other.vm for other in others)
    assert clone(guest.hypervisor).vm.ownership is Ownership.OURS
