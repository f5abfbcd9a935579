"""What is read of a site, what that costs in requests, and that it writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from provisioner.errors import NotFoundError, VsphereUnavailableError
from provisioner.model.lab import GuestRecord
from provisioner.model.observed import Evidence
from provisioner.rules.mark import MARK_KEY
from provisioner.simulator.control import add_users
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.privileges import NEEDED
from tests.contract.guests import OURS, make_record
from tests.contract.vcenters import Simulated
from tests.fakes.samples import ignore
from tests.vsphere.conftest import make_order

Count = Callable[[], dict[str, int]]
READS = {
    "RetrieveServiceContent",
    "Login",
    "FindByInventoryPath",
    "FindByUuid",
    "FindChild",
    "RetrievePropertiesEx",
    "HasPrivilegeOnEntities",
    "Fetch",
    "CreateContainerView",
    "DestroyView",
}
"""Methods that change nothing but the session's own."""


@pytest.mark.parametrize("verb", ["observe_site", "check_sight", "list_marked_vms"])
def test_reading_a_site_writes_nothing_and_costs_little(
    hypervisor: VsphereHypervisor, count: Count, verb: str
) -> None:
    count()
    getattr(hypervisor, verb)()
    spent = count()
    assert set(spent) <= READS, spent
    assert sum(spent.values()) <= 13, spent


def test_the_cost_of_observing_does_not_grow_with_the_labs(
    vcenter: Simulated, hypervisor: VsphereHypervisor, count: Count
) -> None:
    hypervisor.observe_site()
    count()
    hypervisor.observe_site()
    empty = sum(count().values())
    for number in range(30):
        vcenter.plant(f"vm{number:02}")
    count()
    assert len(hypervisor.observe_site().vm_names) == 30
    assert sum(count().values()) == empty


def test_a_guests_life_costs_few_requests(hypervisor: VsphereHypervisor, count: Count) -> None:
    order = make_order(hypervisor)
    count()
    vm = hypervisor.ensure_clone(order, ignore)
    assert sum(count().values()) <= 16
    hypervisor.ensure_powered_on(order.identity)
    assert sum(count().values()) <= 12
    hypervisor.wait_for_address(order.identity, vm.nics[0].mac, 10)
    assert sum(count().values()) <= 12
    hypervisor.destroy_vm(make_record(vm, order))
    spent = count()
    assert sum(spent.values()) <= 24, spent
    mutating = {name for name in spent if name.endswith("_Task")}
    assert mutating == {"PowerOffVM_Task", "Destroy_Task"}


def get_template(vcenter: Simulated) -> vim.VirtualMachine:
    return vcenter.client.template


def spoil_power(vcenter: Simulated) -> None:
    vcenter.client.do(get_template(vcenter).PowerOnVM_Task())


def spoil_mark(vcenter: Simulated) -> None:
    vcenter.set_option(get_template(vcenter)._moId, MARK_KEY, "anything")


def spoil_snapshot(vcenter: Simulated) -> None:
    vcenter.client.do(get_template(vcenter).RemoveAllSnapshots_Task())


def spoil_twice(vcenter: Simulated) -> None:
    vcenter.snapshot(get_template(vcenter)._moId, "labctl-base")


def spoil_kind(vcenter: Simulated) -> None:
    get_template(vcenter).MarkAsTemplate()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_power, "it is not powered off"),
        (spoil_mark, "carries a labctl mark"),
        (spoil_snapshot, "it has no snapshots named labctl-base"),
        (spoil_twice, "it has 2 snapshots named labctl-base"),
        (spoil_kind, "marked as a template"),
    ],
)
def test_a_template_that_is_not_fit_is_told(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    spoil: Callable[[Simulated], None],
    said: str,
) -> None:
    order = make_order(hypervisor)
    assert hypervisor.observe_site().templates[0].fit
    spoil(vcenter)
    site = hypervisor.observe_site()
    (template,) = site.templates
    assert not template.fit
    assert said in template.problem
    (problem,) = site.problems
    assert problem.startswith("vm_templates.debian-13: /DC0/vm/templates/debian-13: ")
    with pytest.raises(NotFoundError, match=said):
        hypervisor.pin_template("debian-13")
    with pytest.raises(NotFoundError, match=said):
        hypervisor.ensure_clone(order, ignore)
    assert vcenter.list_names() == set()


def test_a_path_to_something_else_is_told(vcenter: Simulated) -> None:
    templates = {"debian-13": {"path": "/DC0/vm/templates", "snapshot": "labctl-base"}}
    site = vcenter.connect(
        OURS, networks={"lab": "/DC0/datastore/datastore-0"}, vm_templates=templates
    ).observe_site()
    assert site.problems == (
        "networks.lab: /DC0/datastore/datastore-0 is a Datastore, not a portgroup",
        "vm_templates.debian-13: /DC0/vm/templates is a folder, not a VM",
    )


def test_a_folder_of_something_else_is_told(vcenter: Simulated) -> None:
    placement = vcenter.make_site().placement.model_dump() | {"folder": "/DC0/network"}
    site = vcenter.connect(OURS, placement=placement).observe_site()
    assert site.problems == ("placement.folder: /DC0/network is not a folder of VMs",)


def connect_as(vcenter: Simulated, *grants: dict[str, object]) -> VsphereHypervisor:
    """Connect with an account that is granted this and nothing else."""
    simulator, name = vcenter.client.simulator, "labctl@vsphere.local"
    user = {"name": name, "password": simulator.password, "grants": list(grants)}
    add_users(simulator.world, [user])
    account = {**vcenter.make_site().vcenter.model_dump(exclude_none=True), "username": name}
    return vcenter.connect(OURS, vcenter=account)


def test_every_missing_privilege_is_listed(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    assert hypervisor.check_sight().missing_privileges == ()
    reader = connect_as(vcenter, {"path": "/", "privileges": ["System.Read"]})
    missing = reader.check_sight().missing_privileges
    wanted = {name for row in NEEDED for name in row.privileges} - {"System.Read", "System.View"}
    assert {one.partition(" on ")[0] for one in missing} == wanted
    assert "VirtualMachine.Inventory.Delete on the labs' folder" in missing
    assert "Datastore.AllocateSpace on datastore datastore-1" in missing
    assert "Network.Assign on portgroup sealed" in missing
    assert "VirtualMachine.Provisioning.Clone on VM template debian-13" in missing


def test_inherited_guestinfo_does_not_reach_a_clone(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    template = get_template(vcenter)._moId
    spoil_snapshot(vcenter)
    vcenter.set_option(template, "guestinfo.labctl.hostkey", "of another guest")
    vcenter.snapshot(template, "labctl-base")
    vm = hypervisor.ensure_clone(make_order(hypervisor), ignore)
    keys = {key for key in vcenter.get_options(vm.moref) if key.startswith("guestinfo.")}
    assert keys == {"guestinfo.userdata"}


def test_a_clone_is_linked_to_the_snapshot(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    vm = vcenter.refer(hypervisor.ensure_clone(make_order(hypervisor), ignore).moref)
    (disk,) = vcenter.list_disks(vm._moId)
    base: list[Any] = vcenter.client.template.snapshot.currentSnapshot.config.hardware.device
    source = next(one.backing for one in base if hasattr(one.backing, "diskMode"))
    assert disk.backing.parent.fileName == source.fileName
    assert vm.config.uuid != vcenter.client.template.config.uuid


def test_evidence_that_cannot_be_asked_decides_nothing(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    vm = hypervisor.ensure_clone(order, ignore)
    record = replace(
        make_record(vm, order),
        vim_task="task-1",
        birth_disks=(vm.disks[0].path, "[datastore-9] gone/gone.vmdk"),
    )
    known = {(row.kind, row.name): row.gone for row in ask(hypervisor, record)}
    assert known.pop(("disk", "[datastore-9] gone/gone.vmdk")) is None
    assert known.pop(("task", "task-1")) is True
    assert set(known.values()) == {False}
    away = vcenter.make_site().vcenter.model_dump() | {"port": 1}
    with pytest.raises(VsphereUnavailableError, match="nothing listens there"):
        ask(vcenter.connect(OURS, vcenter=away), record)


@pytest.mark.parametrize("method", ["SearchDatastore_Task", "FindByUuid", "CreateContainerView"])
def test_what_vcenter_does_not_tell_just_now_is_asked_again_later(
    vcenter: Simulated, hypervisor: VsphereHypervisor, method: str
) -> None:
    order = make_order(hypervisor)
    record = make_record(hypervisor.ensure_clone(order, ignore), order)
    away = {"method": method, "what": "vmodl.fault.HostCommunication"}
    refused = {"method": method, "what": "vmodl.fault.SystemError"}
    faults = vcenter.client.simulator.world.faults
    faults.add(away)
    with pytest.raises(VsphereUnavailableError, match="a host is away"):
        ask(hypervisor, record)
    assert {row.gone for row in ask(hypervisor, record)} == {False}
    faults.add(refused)
    rows = ask(hypervisor, record)
    assert [row.gone for row in rows].count(None) == 1, "that row says so, the others tell"


def ask(hypervisor: VsphereHypervisor, record: GuestRecord) -> tuple[Evidence, ...]:
    return hypervisor.collect_evidence(record.identity.lab_id, (record,))
