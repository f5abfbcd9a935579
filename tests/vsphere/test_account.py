"""The account of IT's role: it is enough for a guest's whole life, and what it lacks is said."""

from __future__ import annotations

import pytest

from provisioner.errors import PrivilegeError
from provisioner.model.observed import DestroyResult
from provisioner.simulator.control import add_users
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.privileges import FOLDER, NEEDED, NETWORK, POOL, STORE, TEMPLATE
from tests.contract.guests import ADDRESS_S, OURS, clone, make_identity
from tests.contract.vcenters import Simulated

NAME = "labctl@vsphere.local"
WHERE = {
    FOLDER: ["DC0/vm/labs"],
    POOL: ["DC0/host/cluster-0/Resources"],
    STORE: ["DC0/datastore/datastore-0", "DC0/datastore/datastore-1"],
    NETWORK: ["DC0/network/lab", "DC0/network/sealed"],
    TEMPLATE: ["DC0/vm/templates/debian-13"],
}
Grants = dict[str, set[str]]


def make_role() -> Grants:
    """Return what docs/runbook.md tells IT to grant, by path."""
    grants: Grants = {}
    for row in NEEDED:
        for path in WHERE[row.where]:
            grants.setdefault(path, {"System.Read", "System.View"}).update(row.privileges)
    return grants


def grant(vcenter: Simulated, grants: Grants) -> None:
    rows = [{"path": path, "privileges": sorted(names)} for path, names in grants.items()]
    simulator = vcenter.client.simulator
    add_users(simulator.world, [{"name": NAME, "password": simulator.password, "grants": rows}])


def connect(vcenter: Simulated) -> VsphereHypervisor:
    known = vcenter.make_site().vcenter.model_dump(exclude_none=True)
    return vcenter.connect(OURS, vcenter={**known, "username": NAME})


def test_the_role_is_enough_for_a_guests_whole_life(vcenter: Simulated) -> None:
    grant(vcenter, make_role())
    hypervisor = connect(vcenter)
    sight = hypervisor.check_sight()
    assert (sight.missing_objects, sight.missing_privileges) == ((), ())
    assert hypervisor.observe_site().problems == ()
    guest = clone(hypervisor, dossier="text")
    hypervisor.ensure_powered_on(guest.identity)
    hypervisor.wait_for_address(guest.identity, guest.record.mac, ADDRESS_S)
    hypervisor.write_dossier(guest.identity, "another")
    hypervisor.ensure_powered_off(guest.identity, grace_s=5)
    hypervisor.ensure_networks(guest.identity, connected=False)
    (seen,) = hypervisor.list_marked_vms()
    assert (seen.folder, seen.dossier) == ("/DC0/vm/labs", "another")
    assert set(guest.ask().values()) == {False}
    assert guest.destroy() is DestroyResult.DESTROYED
    assert set(guest.ask().values()) == {True}
    assert hypervisor.check_sight().event_key > sight.event_key


@pytest.mark.parametrize(
    ("privilege", "where"),
    [
        (name, row.where)
        for row in NEEDED
        for name in row.privileges
        if not name.startswith("System.")
    ],
)
def test_a_missing_privilege_is_named(vcenter: Simulated, privilege: str, where: str) -> None:
    grants = make_role()
    for path in WHERE[where]:
        grants[path].discard(privilege)
    grant(vcenter, grants)
    missing = connect(vcenter).check_sight().missing_privileges
    assert {one.partition(" on ")[0] for one in missing} == {privilege}
    assert len(missing) == len(WHERE[where])


@pytest.mark.parametrize("where", WHERE)
def test_what_the_account_cannot_see_is_named(vcenter: Simulated, where: str) -> None:
    grants = make_role()
    for path in WHERE[where]:
        del grants[path]
    grant(vcenter, grants)
    sight = connect(vcenter).check_sight()
    lacks = " ".join((*sight.missing_objects, *sight.missing_privileges))
    for path in WHERE[where]:
        assert path.rpartition("/")[2] in lacks or where in lacks


def test_what_is_only_invisible_is_not_gone(vcenter: Simulated) -> None:
    grant(vcenter, make_role())
    hypervisor = connect(vcenter)
    guest = clone(hypervisor)
    blind = make_role()
    blind["DC0/vm/labs"] = blind["DC0/host/cluster-0/Resources"] = set()
    grant(vcenter, blind)
    for asker in (hypervisor, connect(vcenter)):
        rows = asker.collect_evidence(guest.identity.lab_id, (guest.record,))
        gone = {row.kind: row.gone for row in rows}
        assert True not in gone.values(), rows
        assert "labs' folder" in next(row.answer for row in rows if row.kind == "mark")
        sight = asker.check_sight()
        assert sight.missing_objects or sight.missing_privileges
    grant(vcenter, make_role())
    assert set(guest.ask().values()) == {False}


def test_a_folder_that_is_only_on_the_way_shows_nothing_to_be_gone(vcenter: Simulated) -> None:
    grant(vcenter, make_role())
    hypervisor = connect(vcenter)
    guest, other = clone(hypervisor), clone(hypervisor, make_identity("other"))
    grants = make_role()
    del grants["DC0/vm/labs"], grants["DC0/host/cluster-0/Resources"]
    grants[f"DC0/vm/labs/{other.vm.name}"] = {"System.Read", "System.View"}
    grant(vcenter, grants)
    rows = hypervisor.collect_evidence(guest.identity.lab_id, (guest.record,))
    assert True not in {row.gone for row in rows}, rows
    assert "the account lacks System.Read on the labs' folder" in rows[0].answer


def test_a_vm_in_a_folder_that_is_not_seen_is_not_gone(vcenter: Simulated) -> None:
    grant(vcenter, make_role())
    hypervisor = connect(vcenter)
    guest = clone(hypervisor)
    vcenter.move(guest.vm.moref, "/DC0/vm/hidden")
    gone = guest.ask()
    assert gone["disk"] is False, "its files are seen on the datastore"
    assert gone["moref"] is not True


@pytest.mark.parametrize(
    "privilege", ["VirtualMachine.Inventory.Delete", "VirtualMachine.Interact.PowerOff"]
)
def test_without_the_right_nothing_is_destroyed(vcenter: Simulated, privilege: str) -> None:
    grant(vcenter, make_role())
    hypervisor = connect(vcenter)
    guest = clone(hypervisor)
    hypervisor.ensure_powered_on(guest.identity)
    grants = make_role()
    grants["DC0/vm/labs"].discard(privilege)
    grant(vcenter, grants)
    with pytest.raises(PrivilegeError, match=privilege):
        guest.destroy()
    assert guest.record.birth_disks[0] in vcenter.list_files()
    assert vcenter.list_names() == {guest.vm.name}


def test_an_account_that_sees_nothing_is_told_so(vcenter: Simulated) -> None:
    grant(vcenter, {})
    hypervisor = connect(vcenter)
    sight, site = hypervisor.check_sight(), hypervisor.observe_site()
    assert len(sight.missing_objects) == 6, "folder, datacenter, pool, two networks, one template"
    assert site.problems == sight.missing_objects
    assert not any(template.fit for template in site.templates)
