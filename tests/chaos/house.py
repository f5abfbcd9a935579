"""A whole house on fakes, in virtual time: the real workflows, rules, leases, worker and verbs."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from provisioner.app.wiring import WORKFLOWS, House, SystemClock
from provisioner.errors import GuestUnreachableError, LabctlError
from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import ObservedVm
from provisioner.model.spec import Blueprint, Site, Stack
from provisioner.ports import CloneOrder
from provisioner.rules.mark import Installation
from provisioner.rules.userdata import HOST_KEY_INFO
from provisioner.workflows.work import Toolbox
from tests.chaos.trouble import Crash, Trouble
from tests.fakes.configurator import FakeConfigurator
from tests.fakes.credentials import FakeCredentials
from tests.fakes.engine import InlineEngine
from tests.fakes.guest_shell import FakeGuestShell, FakeMachine
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.samples import KEY, NOW, VCENTER, make_blueprint, make_site
from tests.fakes.store import MemoryStore
from tests.fakes.vcenter import FakeVcenter, FakeVm

OURS = Installation("here", b"k" * 32)
BLUEPRINT = "mlops-onboarding"
SLOTS = ("workbench", "tracking")
ROLE = "linux_baseline"


class VirtualClock(SystemClock):
    """Time that goes on when a test says so. `off_by` is how wrong this machine's clock is."""

    def __init__(self) -> None:
        self.true_at = NOW
        self.off_by = timedelta()

    def advance(self, seconds: float) -> None:
        self.true_at += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self.true_at + self.off_by

    def monotonic_s(self) -> float:
        return (self.true_at - NOW).total_seconds()


class Waiting(threading.Event):
    """A `stopping` of which a wait passes at once: virtual time goes on, or somebody leaves."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self._wait = wait

    def wait(self, timeout: float | None = None) -> bool:
        self._wait(timeout or 0.0)
        return self.is_set()


class LivelyHypervisor(FakeHypervisor):
    """vCenter has its own clock, and ends a clone that it accepted, whoever died meanwhile."""

    clock: VirtualClock

    def read_clock(self) -> datetime:
        with self._verb("read_clock"):
            return self.clock.true_at

    def _wait(
        self, identity: GuestIdentity, look: Callable[[FakeVm], str | None], timeout_s: float
    ) -> str:
        if found := look(self._get_own(identity)):
            return found
        self.clock.advance(timeout_s)
        raise GuestUnreachableError(f"not within {timeout_s:g} s")

    def ensure_clone(self, order: CloneOrder, on_task: Callable[[str], None]) -> ObservedVm:
        try:
            return super().ensure_clone(order, on_task)
        except Crash:
            with suppress(LabctlError):
                super().ensure_clone(order, lambda _: None)
            raise


@dataclass
class Journal:
    """What an engine's database keeps when its process dies."""

    outcomes: dict[Any, Any]
    values: dict[Any, Any]


class World:
    """What outlives every process: vCenter and its guests, store, keys, the engine's database."""

    def __init__(self, folder: Path) -> None:
        self.project, self.state = folder / "project", folder / "state"
        self.clock = VirtualClock()
        self.trouble = Trouble()
        self.vcenter = FakeVcenter(VCENTER)
        self.store = MemoryStore()
        self.credentials = FakeCredentials()
        self.shell = FakeGuestShell()
        self.journal = Journal({}, {})

    def make_hypervisor(self) -> LivelyHypervisor:
        made = LivelyHypervisor(make_site(), OURS, self.clock, self.vcenter)
        made.on_boot = self._boot
        return made

    def _boot(self, vm: FakeVm) -> None:
        """A guest's first boot: publish the host key with the nonce, and let labctl's key in."""
        userdata = base64.b64decode(vm.guestinfo["guestinfo.userdata"]).decode()
        (nonce,) = re.findall(rf"{HOST_KEY_INFO} (\w+)", userdata)
        vm.guestinfo[HOST_KEY_INFO] = f"{nonce} {KEY}"
        files = {
            key.private_file for key in self.credentials.keys.values() if key.public_key in userdata
        }
        for address in vm.addresses.values():
            self.shell.machines.setdefault(address, FakeMachine(KEY, keys={"labctl": set()}))
            self.shell.machines[address].keys["labctl"] |= files


class FakeHouse(House):
    """A process: the worker, or a verb that somebody typed."""

    def __init__(self, world: World, wait: Callable[[float], None]) -> None:
        super().__init__(
            lambda who: who,
            state=world.state,
            project=world.project,
            clock=world.clock,
            stopping=Waiting(wait),
        )
        self.world = world
        self.store = world.trouble.wrap(world.store, "store")
        self.credentials = world.trouble.wrap(world.credentials, "credentials")
        self.hypervisor = world.trouble.wrap(world.make_hypervisor(), "hypervisor")

    def get_hypervisor(self, site: Site) -> Any:
        del site
        return self.hypervisor

    def get_tools(self, site: Site, blueprint: Blueprint) -> Toolbox:
        del blueprint
        return Toolbox(
            hypervisor=self.hypervisor,
            configurator=self.world.trouble.wrap(FakeConfigurator(), "configurator"),
            shell=self.world.trouble.wrap(self.world.shell, "shell"),
            credentials=self.credentials,
            store=self.store,
            clock=self.clock,
            site=site,
            stack=Stack(stack="team", version="1", roles={}),
            ca_texts=(),
            checks=(),
            write_known_hosts=lambda _lab, _guests: "/fake/known_hosts",
            is_stopping=self.stopping.is_set,
        )

    def open_engine(self) -> InlineEngine:
        """Open an engine over what the last one wrote down."""

        def bind(name: str) -> Callable[..., None]:
            return lambda flow, lab_id, generation: self._run(
                WORKFLOWS[name], flow, lab_id, generation
            )

        engine = InlineEngine({name: bind(name) for name in WORKFLOWS}, pauses_s=(0.0,))
        engine._outcomes = self.world.journal.outcomes
        engine._values = self.world.journal.values
        return engine


def write_project(folder: Path) -> None:
    """Write the files that verbs and workers read, as short as can be: they do so all the time."""
    blueprint = make_blueprint(*SLOTS).model_dump(mode="json")
    for guest in blueprint["guests"]:
        guest["roles"] = [ROLE]
    site = make_site().model_dump(mode="json", exclude_defaults=True)
    for path, data in {
        f"labs/{BLUEPRINT}/lab.yml": blueprint,
        "labs/stack.yml": {"stack": "team", "version": "1", "roles": {}},
        "inventory/sites/plant.yml": site,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(data))
    (folder / "playbooks" / "roles" / ROLE).mkdir(parents=True)
