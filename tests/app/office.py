"""An installation whose house is real, on a simulated vCenter; its guests boot and are reached."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyVmomi import vim, vmodl

from provisioner.app.wiring import House
from provisioner.credentials import ensure_installation
from provisioner.files.host_settings import write_site
from provisioner.files.site import load_site
from provisioner.model.lab import (
    Desired,
    GuestIdentity,
    GuestRecord,
    Lab,
    LabState,
    Lease,
    WorkStatus,
)
from provisioner.model.observed import ShellResult
from provisioner.model.spec import Site
from provisioner.ports import ShellTarget
from provisioner.rules.mark import Installation
from provisioner.rules.receipt import Receipt, from_json
from provisioner.rules.userdata import HOST_KEY_INFO
from provisioner.simulator.guests import GuestHardware, NullGuests, ToolsCallbacks
from provisioner.vsphere import VsphereHypervisor
from provisioner.workflows.provision import provision
from provisioner.workflows.teardown import teardown
from provisioner.workflows.work import Toolbox
from tests.contract.hands import PLACE
from tests.contract.vcenters import Simulated
from tests.fakes.configurator import FakeConfigurator
from tests.fakes.engine import InlineFlow
from tests.fakes.samples import KEY, make_audit, make_lab, make_site
from tests.simulator.conftest import Client, running

PROJECT = Path(__file__).parents[2]
SITE = "plant"


class PublishingGuests(NullGuests):
    """Guests that publish their host key at each boot, as cloud-init makes real ones do."""

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        super().power_on(vm, tools)
        userdata = base64.b64decode(vm.guestinfo.get("guestinfo.userdata", "")).decode()
        for nonce in re.findall(rf"{HOST_KEY_INFO} (\w+)", userdata):
            tools.info_set(HOST_KEY_INFO, f"{nonce} {KEY}")


class OpenShell:
    """Every guest lets everybody in, and every command works."""

    def wait_for_login(self, target: ShellTarget, timeout_s: float) -> None:
        """Nothing to wait for."""

    def run(
        self, target: ShellTarget, command: str, *, stdin: str = "", timeout_s: float
    ) -> ShellResult:
        del target, command, stdin, timeout_s
        return ShellResult(0, "", "")


@dataclass
class Office:
    """One state folder, a house over it, and the hand at vCenter's console."""

    state: Path
    hand: Simulated
    house: House

    @classmethod
    def open(cls, state: Path, hand: Simulated) -> Office:
        ensure_installation(state)
        made = cls(state, hand, cls.build_house(state))
        made.write_site(SITE)
        return made

    def write_site(self, name: str, **vcenter: Any) -> None:
        """Write a site file; `vcenter` is what is otherwise with this one."""
        simulator, password = self.hand.client.simulator, self.state / "password"
        password.touch(mode=0o600)
        password.write_text(simulator.password)
        site = json.loads(make_site(**PLACE).model_dump_json(exclude_unset=True))
        site["site"] = name
        site["vcenter"] = {
            "host": simulator.host,
            "port": simulator.port,
            "username": simulator.world.settings.username,
            "ca_file": str(self.hand.ca_file),
            "password_file": str(password),
            **vcenter,
        }
        write_site(self.state / "sites" / f"{name}.yml", site)

    @staticmethod
    def build_house(state: Path) -> House:
        def ask(who: str) -> str:
            raise AssertionError(f"nobody is asked for the password of {who}")

        return House(ask_password=ask, state=state, project=PROJECT)

    def close(self) -> None:
        self.house.close()

    def reopen(self) -> None:
        """End this process's part, as at the end of a verb."""
        self.house.close()
        self.house = self.build_house(self.state)

    def lose_store(self) -> None:
        self.house.close()
        for path in self.state.glob("labctl.db*"):
            path.unlink()
        self.house = self.build_house(self.state)

    def keep_store(self) -> None:
        """Keep the store as it is now, for `put_store_back`."""
        self.house.store.copy_to(self.state / "kept.db")

    def put_store_back(self) -> None:
        self.lose_store()
        (self.state / "kept.db").rename(self.state / "labctl.db")
        (self.state / "labctl.db").chmod(0o600)

    @property
    def site(self) -> Site:
        return load_site(self.house.site_dirs, SITE)

    @property
    def hypervisor(self) -> VsphereHypervisor:
        return self.house.get_hypervisor(self.site)

    def tools(self, lab: Lab) -> Toolbox:
        made = self.house.get_tools(self.site, lab.blueprint)
        return replace(made, configurator=FakeConfigurator(), shell=OpenShell(), checks=())

    def record(self, lab_id: str = "ana-mlops", *slots: str, generation: int = 1) -> Lab:
        """Record the intent of a lab, as `labctl provision` does."""
        sight, now = self.hypervisor.check_sight(), self.house.clock.now()
        lab = replace(
            make_lab(lab_id, generation, *slots),
            vcenter_uuid=sight.vcenter_uuid,
            event_key=sight.event_key,
            created_at=now,
            lease=Lease(now + timedelta(days=14), timedelta(days=3)),
        )
        guests = tuple(
            GuestRecord(
                GuestIdentity(lab_id, generation, spec.slot, str(uuid.uuid4())),
                f"{lab_id}-{spec.slot}",
                uuid.uuid4().hex,
            )
            for spec in lab.blueprint.guests
        )
        item = self.house.store.add_lab(lab, guests, replace(make_audit(lab_id), at=now))
        self.house.store.set_work(item.serial, WorkStatus.DONE, now)
        return lab

    def provision(self, lab_id: str = "ana-mlops", *slots: str, generation: int = 1) -> Lab:
        """Bring a lab about, as a worker does."""
        self.record(lab_id, *slots, generation=generation)
        return self.continue_provision(lab_id)

    def continue_provision(self, lab_id: str) -> Lab:
        lab = self.house.store.get_lab(lab_id)
        provision(InlineFlow(pauses_s=(0.0,)), self.tools(lab), lab_id, lab.generation)
        return self.house.store.get_lab(lab_id)

    def teardown(self, lab_id: str = "ana-mlops") -> Receipt:
        """Remove a lab, as a worker does, and return its receipt."""
        store, now = self.house.store, self.house.clock.now()
        lab = store.get_lab(lab_id)
        store.set_desired(lab_id, lab.generation, Desired.ABSENT, make_audit(lab_id, "teardown"))
        store.set_state(lab_id, lab.generation, LabState.TEARING_DOWN, now)
        teardown(InlineFlow(pauses_s=(0.0,)), self.tools(lab), lab_id, lab.generation)
        return from_json(store.find_receipt(lab_id) or "")

    def forget(self, lab_id: str = "ana-mlops") -> None:
        """Close a lab and leave its VMs: they are orphans."""
        store, now = self.house.store, self.house.clock.now()
        lab = store.get_lab(lab_id)
        store.set_state(lab_id, lab.generation, LabState.FORGOTTEN, now)

    def guests(self, lab_id: str = "ana-mlops") -> tuple[GuestRecord, ...]:
        lab = self.house.store.get_lab(lab_id)
        return self.house.store.list_guests(lab_id, lab.generation)

    def connect(self, installation: Installation) -> VsphereHypervisor:
        """Connect another installation."""
        return self.hand.connect(installation)


PICTURED = ("name", "config.instanceUuid", "config.changeVersion", "runtime.powerState")
Picture = dict[str, dict[str, Any]]


def take_picture(hand: Simulated) -> Picture:
    """Read of every VM what anybody's hand on it would change, with a stock client."""
    client = hand.client
    view = client.content.viewManager.CreateContainerView(
        client.content.rootFolder, [vim.VirtualMachine], True
    )
    query = vmodl.query.PropertyCollector
    way = query.TraversalSpec(type=vim.view.ContainerView, path="view", name="view", skip=False)
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=view, skip=True, selectSet=[way])],
        propSet=[query.PropertySpec(type=vim.VirtualMachine, pathSet=list(PICTURED))],
    )
    try:
        found = client.content.propertyCollector.RetrieveProperties([spec])
    finally:
        view.DestroyView()
    return {one.obj._moId: {prop.name: prop.val for prop in one.propSet} for one in found}


@contextmanager
def opening_office(folder: Path) -> Iterator[Office]:
    """Run a simulator and an installation below `folder`."""
    (folder / "state").mkdir(mode=0o700)
    with running(folder / "simulator", PublishingGuests(boot_s=0.02)) as simulator:
        hand = Simulated(folder / "simulator", Client(simulator))
        office = Office.open(folder / "state", hand)
        try:
            yield office
        finally:
            office.close()
            hand.close()
