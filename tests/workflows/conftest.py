"""A whole world in memory: workflows run on fakes of every port."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from provisioner.model.lab import Desired, Lab, LabState
from provisioner.model.observed import ShellResult
from provisioner.model.spec import Check, CheckKind, RunAs, Stack
from provisioner.ports import ShellTarget
from provisioner.rules.mark import Installation
from provisioner.rules.ssh import build_known_hosts
from provisioner.rules.userdata import HOST_KEY_INFO
from provisioner.workflows.provision import converge, provision
from provisioner.workflows.teardown import teardown
from provisioner.workflows.work import Toolbox
from tests.fakes.configurator import FakeConfigurator
from tests.fakes.credentials import FakeCredentials
from tests.fakes.engine import InlineFlow
from tests.fakes.guest_shell import FakeGuestShell, FakeMachine
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.samples import KEY, NOW, VCENTER, make_audit, make_guests, make_lab, make_site
from tests.fakes.store import MemoryStore
from tests.fakes.vcenter import FakeVcenter, FakeVm

TRIAL = "hire-login"
CHECK = "guest-running"


@dataclass
class FixedClock:
    """Time that goes on by a second with every look."""

    at: datetime = NOW

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic_s(self) -> float:
        return self.now().timestamp()


def make_check(name: str, kind: CheckKind, run_as: RunAs) -> Check:
    return Check(
        name=name,
        title=name,
        kind=kind,
        run_as=run_as,
        script="look.sh",
        timeout_s=5,
        remedy="mend it",
        role="linux_baseline",
        body=f"echo {name}",
    )


@dataclass
class World:
    """The fakes, and what stands in them. `broken` are the checks that fail on every guest."""

    vcenter: FakeVcenter = field(default_factory=lambda: FakeVcenter(VCENTER))
    shell: FakeGuestShell = field(default_factory=FakeGuestShell)
    credentials: FakeCredentials = field(default_factory=FakeCredentials)
    configurator: FakeConfigurator = field(default_factory=FakeConfigurator)
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: FixedClock = field(default_factory=FixedClock)
    broken: set[str] = field(default_factory=set)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.hypervisor = FakeHypervisor(
            make_site(), Installation("here", b"k" * 32), self.clock, self.vcenter
        )
        self.hypervisor.on_boot = self.boot

    def boot(self, vm: FakeVm) -> None:
        """A guest's first boot: publish the host key with the nonce, and answer over SSH."""
        userdata = base64.b64decode(vm.guestinfo["guestinfo.userdata"]).decode()
        (nonce,) = re.findall(rf"{HOST_KEY_INFO} (\w+)", userdata)
        vm.guestinfo[HOST_KEY_INFO] = f"{nonce} {KEY}"
        for address in vm.addresses.values():
            machine = FakeMachine(KEY, answer=self.answer)
            machine.keys = {"labctl": {"/fake/keys/ana-mlops/1"}}
            self.shell.machines[address] = machine

    def answer(self, target: ShellTarget, command: str, stdin: str) -> ShellResult:
        keys = self.shell.machines[target.address].keys
        if "install -m" in command:
            keys["ana"] = {
                key.private_file
                for key in self.credentials.keys.values()
                if key.public_key == stdin.strip()
            }
        if "rm -f" in command:
            keys.pop("ana", None)
        name = stdin.removeprefix("echo ")
        return ShellResult(1 if name in self.broken else 0, f"saw {name or command}\n", "")

    @property
    def tools(self) -> Toolbox:
        return Toolbox(
            hypervisor=self.hypervisor,
            configurator=self.configurator,
            shell=self.shell,
            credentials=self.credentials,
            store=self.store,
            clock=self.clock,
            site=make_site(),
            stack=Stack(stack="team", version="1", roles={}),
            ca_texts=(),
            checks=(
                make_check(CHECK, CheckKind.CHECK, RunAs.ADMIN),
                make_check(TRIAL, CheckKind.TRIAL, RunAs.HIRE),
            ),
            write_known_hosts=lambda _lab, guests: (
                build_known_hosts(guests) and "/fake/known_hosts"
            ),
            is_stopping=lambda: self.stopping,
        )

    @property
    def lab(self) -> Lab:
        return self.store.get_lab("ana-mlops")

    def get_state(self) -> LabState:
        return self.lab.state

    def steps(self, status: str) -> list[tuple[str, str]]:
        rows = self.store.list_progress("ana-mlops")
        return [(row.step, row.slot) for row in rows if row.status == status]

    def provision(self) -> InlineFlow:
        flow = InlineFlow(pauses_s=(0.0,))
        provision(flow, self.tools, "ana-mlops", 1)
        return flow

    def converge(self) -> None:
        converge(InlineFlow(pauses_s=(0.0,)), self.tools, "ana-mlops", 1)

    def teardown(self) -> None:
        self.store.set_desired("ana-mlops", 1, Desired.ABSENT, make_audit(action="teardown"))
        self.store.set_state("ana-mlops", 1, LabState.TEARING_DOWN, self.clock.now())
        teardown(InlineFlow(pauses_s=(0.0,)), self.tools, "ana-mlops", 1)


@pytest.fixture
def world() -> World:
    return make_world("workbench")


def make_world(*slots: str) -> World:
    """A world in which the intent of Ana's lab is recorded."""
    made = World()
    lab = make_lab("ana-mlops", 1, *slots)
    guests = make_guests(lab, address="", host_key="")
    made.store.add_lab(lab, guests, make_audit())
    made.vcenter.events = lab.event_key
    return made
