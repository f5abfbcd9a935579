"""What the contract suites share: engines, vCenters, and Ansible on this machine."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provisioner.converge import RunnerConfigurator
from provisioner.engine import DurableEngine, InProcessEngine
from provisioner.model.observed import PlayProgress
from provisioner.ports import Flow, Hypervisor, PlayOrder
from tests.contract.engines import MakeEngine, making, run_body
from tests.contract.guests import OURS, Guest, clone
from tests.contract.lacks import LACKS
from tests.contract.stores import store_fixture
from tests.contract.vcenters import InMemory, Vcenter, simulated
from tests.contract.vcsims import SOURCE, vcsim
from tests.fakes.engine import InlineEngine
from tests.ground.golang import build_program

__all__ = ["store_fixture"]

PAUSE = threading.Event()
CONFIG = """[defaults]
interpreter_python = {python}
host_key_checking = True
gathering = explicit
retry_files_enabled = False
"""


def wait_until(check: Callable[[], object], deadline_s: float = 20) -> None:
    """Return as soon as the check is true."""
    end_s = time.monotonic() + deadline_s
    while not check():
        assert time.monotonic() < end_s, f"still not so after {deadline_s} s"
        PAUSE.wait(0.05)


class Ansible:
    """Playbooks of a test, and a configurator that runs them."""

    def __init__(self, folder: Path) -> None:
        self.playbooks = folder / "playbooks"
        self.playbooks.mkdir()
        self.run_root = folder / "state" / "runs"
        (self.playbooks / "ansible.cfg").write_text(CONFIG.format(python=sys.executable))
        self.configurator = RunnerConfigurator(self.playbooks, self.run_root)

    def order(
        self,
        tasks: list[dict[str, Any]],
        hosts: dict[str, Any] | None = None,
        lab: str = "ana-mlops",
    ) -> PlayOrder:
        """Write a playbook with one play of these tasks, and order it for local guests."""
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        return self.order_text(json.dumps([play]), hosts, lab)

    def order_text(
        self, text: str, hosts: dict[str, Any] | None = None, lab: str = "ana-mlops"
    ) -> PlayOrder:
        name = f"{lab}.yml"
        (self.playbooks / name).write_text(text)
        local = {"ansible_connection": "local"}
        inventory = {"all": {"hosts": hosts or {"workbench": local}}}
        return PlayOrder(lab_id=lab, playbook=name, inventory=inventory)

    def run_folders(self) -> list[Path]:
        """List the run folders of this test that exist now, in memory and on disk."""
        prefix = self.configurator._folders._prefix
        shared = Path("/dev/shm")  # noqa: S108 - looked at, not written
        return [*shared.glob(f"{prefix}*"), *self.run_root.glob("*")]


def run(ansible: Ansible, tasks: list[dict[str, Any]], **hosts: Any) -> list[PlayProgress]:
    events: list[PlayProgress] = []
    ansible.configurator.run_play(ansible.order(tasks, hosts or None), events.append, lambda: False)
    return events


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(tmp_path)


def is_beyond_vcsim(item: pytest.Item) -> bool:
    """Tell whether a case is for vcsim and needs what that lacks."""
    needed = {name for mark in item.iter_markers("needs") for name in mark.args}
    assert needed <= set(LACKS), f"{item.nodeid} needs what lacks.py does not name: {needed}"
    spec = getattr(item, "callspec", None)
    return bool(needed) and spec is not None and spec.params["vcenter"] == "vcsim"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    beyond = [item for item in items if is_beyond_vcsim(item)]
    config.hook.pytest_deselected(items=beyond)
    items[:] = [item for item in items if item not in beyond]


@pytest.fixture(scope="session")
def vcsim_program() -> Path:
    return build_program(SOURCE)


@pytest.fixture(params=["vsphere", "memory", "vcsim"])
def vcenter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vcenter]:
    if request.param == "memory":
        yield InMemory()
    elif request.param == "vsphere":
        with simulated(tmp_path) as hand:
            yield hand
    else:
        with vcsim(request.getfixturevalue("vcsim_program"), tmp_path) as hand:
            yield hand


@pytest.fixture
def hypervisor(vcenter: Vcenter) -> Hypervisor:
    return vcenter.connect(OURS)


@pytest.fixture
def guest(hypervisor: Hypervisor) -> Guest:
    return clone(hypervisor)


@pytest.fixture(params=[InlineEngine, InProcessEngine, DurableEngine])
def make_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeEngine]:
    with making(request.param, tmp_path) as make:
        yield make


@pytest.fixture
def run_flow(make_engine: MakeEngine) -> Callable[[Callable[[Flow], Any]], None]:
    """Run a workflow body to its end, and raise what it raised."""
    return partial(run_body, make_engine)
