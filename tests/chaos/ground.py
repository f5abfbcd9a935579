"""One case: a simulator in this process, an installation on it, one lab, and what became of it.

What became of it is asked by a plain pyVmomi client and read from the store's file, never through
labctl.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVmomi import vim

from provisioner.app.labs import Labs, Request
from provisioner.credentials import ensure_installation
from provisioner.files.host_settings import write_site
from tests.chaos.guests import SpeakingGuests
from tests.chaos.wiring import ChaosHouse
from tests.contract.hands import PLACE
from tests.fakes.samples import KEY, ignore
from tests.simulator.conftest import Client, Simulator, running

PROJECT = Path(__file__).parents[2]
SITE, BLUEPRINT, HIRE, LAB = "plant", "bench", "ana@example.com", "ana-bench"
SLOT = "workbench"
MUTATIONS = frozenset(
    {"CloneVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "ReconfigVM_Task", "Destroy_Task"}
)


class AskedError(Exception):
    """The verb ends here: its work is recorded, and it follows it no more."""


class _Asking:
    """A store whose verb ends as soon as it has recorded what it asks for."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def add_lab(self, *args: Any) -> None:
        self._store.add_lab(*args)
        raise AskedError

    def ask_for_work(self, *args: Any, **kwargs: Any) -> None:
        self._store.ask_for_work(*args, **kwargs)
        raise AskedError


def make_project(folder: Path, slots: tuple[str, ...]) -> Path:
    """Make a project with one small blueprint beside the real roles."""
    guest = {"vm_template": "debian-13", "cpus": 1, "memory_mib": 1024, "networks": ["lab"]}
    guests = [{"slot": slot, **guest, "roles": ["docker_engine"]} for slot in slots]
    lease = {"default_days": 1, "max_days": 2, "grace_days": 0}
    lab = {"blueprint": BLUEPRINT, "title": "A bench", "short": BLUEPRINT, "lease": lease}
    (folder / "labs" / BLUEPRINT).mkdir(parents=True)
    (folder / "labs" / BLUEPRINT / "lab.yml").write_text(json.dumps({**lab, "guests": guests}))
    (folder / "labs" / "stack.yml").symlink_to(PROJECT / "labs" / "stack.yml")
    (folder / "playbooks").symlink_to(PROJECT / "playbooks")
    return folder


@dataclass
class Ground:
    """A lab's place, from before its request to after its end."""

    simulator: Simulator
    state: Path
    project: Path
    slots: tuple[str, ...] = (SLOT,)

    def ask(self, act: Callable[[Labs], object]) -> None:
        """Let a verb ask for work and end, as one that is left with Ctrl-C."""
        house = ChaosHouse(
            ask_password=lambda who: who,
            state=self.state,
            project=self.project,
            watch=lambda adapter, port: _Asking(adapter) if port == "store" else adapter,
        )
        try:
            act(Labs(house))
        except AskedError:
            return
        finally:
            house.close()
        raise AssertionError("the verb asked for nothing")

    def ask_provision(self) -> None:
        self.ask(lambda labs: labs.provision(Request(BLUEPRINT, HIRE, KEY), ignore))

    def ask_teardown(self) -> None:
        self.ask(lambda labs: labs.teardown(LAB, ignore))

    def write_site(self, port: int) -> None:
        """Say at which port of this machine vCenter is."""
        folder, simulator = self.state.parent / "simulator", self.simulator
        vcenter = {
            "host": simulator.host,
            "port": port,
            "username": simulator.world.settings.username,
            "password_file": str(folder / "password"),
            "ca_file": str(folder / "certificate.pem"),
        }
        template = {"path": "/DC0/vm/templates/debian-13", "snapshot": "labctl-base"}
        site = {"site": SITE, "vcenter": vcenter, **PLACE, "vm_templates": {"debian-13": template}}
        write_site(self.state / "sites" / f"{SITE}.yml", site)

    # -- what became of it ------------------------------------------------------------------------

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the store's file itself."""
        with closing(sqlite3.connect(f"file:{self.state}/labctl.db?mode=ro", uri=True)) as raw:
            return raw.execute(sql).fetchall()

    def list_files(self) -> set[str]:
        """List the files on all datastores that are no template's."""
        found, hand = set(), Client(self.simulator)
        for name in ("datastore-0", "datastore-1"):
            browser = hand.find(f"DC0/datastore/{name}").browser
            for folder in hand.do(browser.SearchDatastoreSubFolders_Task(f"[{name}]")):
                found |= {f"{folder.folderPath.rstrip('/')}/{one.path}" for one in folder.file}
        return {path for path in found if "debian-13" not in path}

    def list_vms(self) -> list[Any]:
        """List the VMs of the whole vCenter that are no templates."""
        content = Client(self.simulator).content
        kinds = [vim.VirtualMachine]
        view = content.viewManager.CreateContainerView(content.rootFolder, kinds, True)
        try:
            return [vm for vm in view.view if "debian-13" not in vm.name]
        finally:
            view.Destroy()

    def count(self, method: str) -> int:
        """Count the calls of a method that vCenter was sent."""
        return int(self.simulator.world.requests[method])

    def find_wrong_provision(self) -> list[str]:
        """Say what is wrong after a provision; empty: one VM of each guest, on, verified, ready."""
        vms, wanted = self.list_vms(), [f"{LAB}-{slot}" for slot in self.slots]
        names = sorted(vm.name for vm in vms)
        wrong = [f"doubled: {names}"] if len(names) > len(wanted) else []
        wrong += [f"there is no VM {name}" for name in wanted if name not in names]
        states = {vm.name: vm.runtime.powerState for vm in vms}
        wrong += [f"VM {name} is {state}" for name, state in states.items() if state != "poweredOn"]
        folders = {vm.config.files.vmPathName.rpartition("/")[0] for vm in vms}
        files = [path for path in self.list_files() if path.rpartition("/")[0] not in folders]
        trial_keys = [*self.state.glob("keys/*/trial-*"), *self.state.parent.glob("guests/*/*")]
        wrong += [f"leaked: {path}" for path in (*files, *trial_keys)]
        return wrong + self._find_wrong_record("provision", "ready")

    def find_wrong_teardown(self) -> list[str]:
        """Say what is wrong after a teardown; empty: nothing is left, and a receipt proves it."""
        wrong = [f"leaked: VM {vm.name}" for vm in self.list_vms()]
        wrong += [f"leaked: {path}" for path in self.list_files()]
        keys = self.state / "keys"
        wrong += [f"leaked: {path}" for path in keys.rglob("*") if path.is_file()]
        rows = [
            row
            for (text,) in self.query("SELECT receipt FROM receipts")
            for row in json.loads(text)["evidence"]
        ]
        kinds = {row["kind"] for row in rows if row["gone"] is True}
        if not {"uuid", "name", "mark"} <= kinds or not all(row["gone"] for row in rows):
            wrong.append(f"the receipt is not complete: {rows}")
        return wrong + self._find_wrong_record("teardown", "gone")

    def _find_wrong_record(self, workflow: str, state: str) -> list[str]:
        wrong = []
        if (found := self.query("SELECT state, note FROM labs")) != [(state, "")]:
            wrong.append(f"stuck: the lab is {found}")
        work = self.query(f"SELECT status, error FROM work WHERE workflow = '{workflow}'")  # noqa: S608 - ours
        if work[-1:] != [("done", None)]:
            wrong.append(f"stuck: the work is {work}")
        return wrong


@contextmanager
def ground(folder: Path, *slots: str) -> Iterator[Ground]:
    """Make the place of a lab with these guests below a folder."""
    slots = slots or (SLOT,)
    state = folder / "state"
    state.mkdir(mode=0o700, parents=True)
    ensure_installation(state)
    with running(folder / "simulator", SpeakingGuests()) as simulator:
        project = make_project(folder / "project", slots)
        place = Ground(simulator, state, project, slots)
        place.write_site(simulator.port)
        yield place
