"""The composition root: which adapter stands behind which port, and where things are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from provisioner.files.checks import load_checks
from provisioner.files.site import load_site, project_dir, read_password, state_dir
from provisioner.files.stack import load_stack
from provisioner.model.lab import GuestRecord, Lab
from provisioner.model.spec import Blueprint, Site
from provisioner.ports import Flow, Workflow
from provisioner.rules.ssh import build_known_hosts
from provisioner.store import SqlStore, open_store
from provisioner.workflows.lease import expire, revive
from provisioner.workflows.provision import converge, provision
from provisioner.workflows.teardown import teardown
from provisioner.workflows.work import Toolbox

# Adapters are imported where they are made: a verb that only reads the store needs none of them.
if TYPE_CHECKING:
    from provisioner.credentials import FileCredentials
    from provisioner.ports import Engine
    from provisioner.vsphere import VsphereHypervisor

HISTORY_FOR = timedelta(days=30)
"""How long the engine remembers what has ended; the store's log stays."""

WORKFLOWS: dict[str, Callable[[Flow, Toolbox, str, int], None]] = {
    "provision": provision,
    "converge": converge,
    "expire": expire,
    "revive": revive,
    "teardown": teardown,
}


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the present as aware UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place behind the Clock port

    def monotonic_s(self) -> float:
        """Return seconds that never go back."""
        return monotonic()


@dataclass
class House:
    """Everything wired together, each part made when first used.

    Args:
        ask_password: asks the person at the terminal for the password of `user at host`.
        state: the state folder; by default the one of `files.site.state_dir`.
    """

    ask_password: Callable[[str], str]
    state: Path = field(default_factory=state_dir)
    project: Path = field(default_factory=project_dir)
    clock: SystemClock = field(default_factory=SystemClock)
    stopping: threading.Event = field(default_factory=threading.Event)
    _hypervisors: dict[str, VsphereHypervisor] = field(default_factory=dict)
    _making: threading.Lock = field(default_factory=threading.Lock)
    _passwords: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def labs_dir(self) -> Path:
        """Where blueprints and the stack are."""
        return self.project / "labs"

    @property
    def playbooks_dir(self) -> Path:
        """Where playbooks and roles are."""
        return self.project / "playbooks"

    @property
    def site_dirs(self) -> tuple[Path, ...]:
        """Where site files are looked for, in this order."""
        return (self.project / "inventory" / "sites", self.state / "sites")

    @cached_property
    def store(self) -> SqlStore:
        """The store of this installation."""
        return open_store(self.state / "labctl.db")

    @cached_property
    def credentials(self) -> FileCredentials:
        """Labctl's own keys."""
        from provisioner.credentials import FileCredentials

        return FileCredentials(self.state)

    def open_engine(self) -> Engine:
        """Open what runs workflows; only the worker does. Raises BusyError when another one is."""
        from provisioner.engine import DurableEngine

        workflows: dict[str, Workflow] = {
            name: partial(self._run, workflow) for name, workflow in WORKFLOWS.items()
        }
        engine = DurableEngine(workflows, self.state / "engine.db")
        engine.forget_finished(self.clock.now() - HISTORY_FOR)
        return engine

    def get_hypervisor(self, site: Site) -> VsphereHypervisor:
        """Return the one session with a site's vCenter; it logs in when first used."""
        from provisioner.credentials import get_installation
        from provisioner.vsphere import VsphereHypervisor

        # By all that the file says: a worker outlives changes of it.
        wanted = site.model_dump_json()
        with self._making:
            if wanted not in self._hypervisors:
                self._hypervisors[wanted] = VsphereHypervisor(
                    site, get_installation(self.state), lambda: self.get_password(site), self.clock
                )
            return self._hypervisors[wanted]

    def get_tools(self, site: Site, blueprint: Blueprint) -> Toolbox:
        """Gather the ports and files that work on a lab of this blueprint needs."""
        from provisioner.converge import RunnerConfigurator
        from provisioner.shell import ParamikoShell

        roles = tuple(dict.fromkeys(role for guest in blueprint.guests for role in guest.roles))
        return Toolbox(
            hypervisor=self.get_hypervisor(site),
            configurator=RunnerConfigurator(self.playbooks_dir, self.state / "runs"),
            shell=ParamikoShell(jump_known_hosts=self.state / "jump_known_hosts"),
            credentials=self.credentials,
            store=self.store,
            clock=self.clock,
            site=site,
            stack=load_stack(self.labs_dir),
            ca_texts=tuple(path.read_text() for path in site.guests.ca_certificates),
            checks=load_checks(self.playbooks_dir, roles),
            write_known_hosts=self.write_known_hosts,
            is_stopping=self.stopping.is_set,
        )

    def write_known_hosts(self, lab: Lab, guests: tuple[GuestRecord, ...]) -> str:
        """Keep a lab's pinned host keys where Ansible reads them; return the file's path."""
        path = self.state / "labs" / lab.lab_id / "known_hosts"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(build_known_hosts(guests))
        return str(path)

    def close(self) -> None:
        """Leave nothing open: sessions, then the store."""
        for hypervisor in self._hypervisors.values():
            hypervisor.close()
        if "store" in vars(self):  # a cached property is in there once it was used
            self.store.close()

    def get_password(self, site: Site) -> str:
        """Return the password of a site's account; a person is asked at most once for it."""
        password = read_password(site)
        if password is None:
            who = f"{site.vcenter.username} at {site.vcenter.host}"
            if who not in self._passwords:
                self._passwords[who] = self.ask_password(who)
            return self._passwords[who]
        return password

    def list_typed_passwords(self) -> dict[str, str]:
        """Return what was asked so far, for the worker that this process starts."""
        return dict(self._passwords)

    def _run(
        self,
        workflow: Callable[[Flow, Toolbox, str, int], None],
        flow: Flow,
        lab_id: str,
        generation: int,
    ) -> None:
        lab = self.store.get_lab(lab_id)
        site = load_site(self.site_dirs, lab.site)
        workflow(flow, self.get_tools(site, lab.blueprint), lab_id, generation)


def make_installation(house: House) -> str:
    """Make the installation's identity when there is none yet, and return its id."""
    from provisioner.credentials import ensure_installation

    return ensure_installation(house.state).installation_id
