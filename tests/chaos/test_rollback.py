"""vCenter is put back from a backup in the middle of work: what it no longer shows may still run.

Then work may end in an error that says so. It must not make a second machine, and a receipt that
is complete must be true of the datastores and hosts, not only of the inventory.

The backup is older than some event that vCenter has shown since: by its events alone, a vCenter
that went back by less cannot be told from one that did not.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pyVmomi import vim

from provisioner.simulator.restore import remember, roll_back
from tests.chaos.ground import Ground, ground
from tests.chaos.hasty import StuckError, wait_for_end, working
from tests.chaos.lanes import run_side_by_side
from tests.chaos.schedules import WORKFLOWS, Site, ask, record_sites

OUT_S = 0.2
EACH_OF_SHORT = 5
Rollback = tuple[Site, str]


@pytest.fixture(scope="module")
def rollbacks() -> list[Rollback]:
    """One at the last call of each method, before its effect or after it, in both kinds of work."""
    return [(site, when) for site in sorted(record_sites()) for when in ("before", "after")]


def run_rollback(rollback: Rollback) -> list[str]:
    """Provision a lab and tear it down; return what is wrong."""
    site, when = rollback
    wrong: list[str] = []
    with (
        TemporaryDirectory(prefix="labctl-chaos-") as folder,
        ground(Path(folder) / "case") as place,
    ):
        world = place.simulator.world
        rule = {"method": site.method, "nth": site.count, "what": "rollback", "when": when}
        with working(place):
            for workflow in WORKFLOWS:
                ask(place, workflow)
                remember(world, workflow)
                world.log_event(vim.event.GeneralUserEvent, None, "the backup was made")
                if workflow == site.workflow:
                    world.faults.add({**rule, "to": workflow, "seconds": OUT_S})
                try:
                    error = wait_for_end(place)
                except StuckError as stuck:
                    return [f"{rollback}: {stuck}"]
                wrong += find_lies(place, workflow, error)
        if not any(one["fired"] for one in world.faults.list_rules()):
            wrong.append("there was no rollback")
    return [f"{site.workflow}, {when} {site.method}: {text}" for text in wrong]


def find_lies(place: Ground, workflow: str, error: str | None) -> list[str]:
    """Say what is not so in the world itself, whatever vCenter shows."""
    machines = list_machines(place)
    if workflow == "provision":
        wrong = [f"doubled: {machines}"] if len(machines) > 1 else []
        return wrong + (place.find_wrong_provision() if error is None else [])
    receipts = [json.loads(text) for (text,) in place.query("SELECT receipt FROM receipts")]
    is_claimed = any(is_complete(receipt) for receipt in receipts) or error is None
    return [f"a receipt, and there is {machines}"] if is_claimed and machines else []


def list_machines(place: Ground) -> set[str]:
    """List the machines that exist: their folders on datastores, and those that run."""
    running = {tools._vm.config.name for tools in place.simulator.guests.running.values()}
    return {path.split("] ")[-1].split("/")[0] for path in place.list_files()} | running


def is_complete(receipt: dict[str, Any]) -> bool:
    return all(row["gone"] for row in receipt["evidence"]) and not receipt["residue"]


def run_all(rollbacks: list[Rollback]) -> list[str]:
    return [text for wrong in run_side_by_side(run_rollback, rollbacks) for text in wrong]


def test_a_rollback_makes_no_second_machine_and_no_false_receipt(rollbacks: list[Rollback]) -> None:
    assert run_all(rollbacks[::EACH_OF_SHORT]) == []


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_rollback_at_every_call_site(rollbacks: list[Rollback]) -> None:
    wrong = run_all(rollbacks)
    print(f"\n{len(rollbacks)} rollbacks: {len(wrong)} wrong")
    assert wrong == []


def test_a_machine_that_vcenter_does_not_show_would_be_seen(tmp_path: Path) -> None:
    with ground(tmp_path / "case") as place:
        world = place.simulator.world
        place.ask_provision()
        remember(world, "asked")
        with working(place):
            assert wait_for_end(place) is None
        roll_back(world, "asked")
        assert place.list_vms() == []
        assert list_machines(place) == {"ana-bench-workbench"}
        assert find_lies(place, "teardown", None) != []
        assert find_lies(place, "provision", None) != []
