"""Which work on a lab may be asked for while other work is open, and which run it is."""

from __future__ import annotations

from collections.abc import Iterable

from provisioner.errors import BusyError
from provisioner.model.lab import OPEN_WORK, WorkItem, WorkStatus

TEARDOWN = "teardown"
CONTINUED = frozenset({"provision"})
"""Workflows of which a failed run is continued instead of begun anew."""


def choose_run(workflow: str, newest: WorkItem | None) -> int:
    """Choose the run's number; `newest` is the newest item of this workflow and generation."""
    if newest is None:
        return 1
    continues = workflow in CONTINUED and newest.status is WorkStatus.FAILED
    return newest.run if continues else newest.run + 1


def find_same(workflow: str, items: Iterable[WorkItem]) -> WorkItem | None:
    """Return the open item of this workflow among a generation's items."""
    open_items = (one for one in items if one.status in OPEN_WORK)
    return next((one for one in open_items if one.workflow == workflow), None)


def check_free(workflow: str, lab_id: str, items: Iterable[WorkItem]) -> None:
    """Raise BusyError when other work on the lab is open. A teardown asks nobody's leave."""
    busy = sorted({one.workflow for one in items if one.status in OPEN_WORK} - {workflow})
    if busy and workflow != TEARDOWN:
        raise BusyError(
            f"{' and '.join(busy)} of lab {lab_id} is under way",
            hint=f"follow it with: labctl logs {lab_id} --follow",
        )
