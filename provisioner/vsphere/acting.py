"""How labctl acts on vCenter: every call is sent once, and what became of it is looked at.

A lost answer, an ended session, another task on the same VM and a vCenter that came back with new
references all end in the same way: wait until nothing is under way, read the VM again by its UUID,
and only then decide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from pyVmomi import vim, vmodl

from provisioner.errors import (
    TaskFailedError,
    VmGoneError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestIdentity
from provisioner.vsphere.lookup import Lookup
from provisioner.vsphere.machines import Machine, Machines
from provisioner.vsphere.properties import build_spec
from provisioner.vsphere.session import Session
from provisioner.vsphere.waiter import ENDED, Waiter

CLONE_TASK = "virtualmachine.clone"
WITHOUT_EFFECT = (
    vim.fault.NotAuthenticated,
    vim.fault.TaskInProgress,
    vim.fault.ConcurrentAccess,
    vmodl.fault.ManagedObjectNotFound,
)
"""Faults that say that nothing was done, and that it may be done when they are over."""


class Acting:
    """Starts vim tasks and brings VMs to a state."""

    def __init__(
        self, session: Session, lookup: Lookup, machines: Machines, waiter: Waiter
    ) -> None:
        self._session = session
        self._lookup = lookup
        self._machines = machines
        self._waiter = waiter

    def run(self, start: Callable[[], Any], doing: str, limit_s: float) -> Any:
        """Start a vim task, once, and wait for its end."""
        with self._session.cannot(doing):
            task = start()
        return self._waiter.wait_for_task(task, limit_s, doing)

    def bring(
        self,
        identity: GuestIdentity,
        is_so: Callable[[Machine], bool],
        start: Callable[[Machine], Any],
        doing: str,
        limit_s: float,
    ) -> None:
        """Start a task on the VM until it is as wanted, at most three times.

        Raises:
            VmGoneError: there is no such VM.
            NotOwnedError: it is not ours.
            TaskFailedError: vCenter refused, and the VM is as it was.
            VsphereUnavailableError: vCenter does not answer, or asks to come again.
        """
        machine = self._machines.get_own(identity)
        for is_last in (False, False, True):
            if is_so(machine):
                return
            try:
                self.run(partial(start, machine), doing, limit_s)
            except (TaskFailedError, VmGoneError, VsphereUnavailableError) as error:
                before, machine = machine, self._look_again(machine, identity, limit_s)
                is_same = machine.vm.power_state is before.vm.power_state
                is_refused = isinstance(error, TaskFailedError) and is_same
                if (is_refused or is_last) and not is_so(machine):
                    raise
            else:
                return

    def _look_again(self, machine: Machine, identity: GuestIdentity, limit_s: float) -> Machine:
        """Read a VM again once no task is under way on it. Raises what `get_own` does."""
        with contextlib.suppress(VmGoneError):
            self.settle(self._list_tasks([machine.ref]), limit_s)
        return self._machines.get_own(identity)

    def list_clones(self, *names: str) -> list[Any]:
        """List the clones of some of the site's templates, or of all, that have not ended yet."""
        return self._list_template_tasks(names, CLONE_TASK)

    def settle_template(self, name: str, limit_s: float) -> None:
        """Wait until no task is under way on a template. Raises what `settle` does."""
        self.settle(self._list_template_tasks((name,)), limit_s)

    def _list_template_tasks(self, names: tuple[str, ...], description: str = "") -> list[Any]:
        def list_tasks(known: Mapping[str, Any]) -> list[Any]:
            templates = [known[name] for name in names or known if name in known]
            return self._list_tasks(templates, description) if templates else []

        try:
            return list_tasks(self._lookup.get_place().templates)
        except VmGoneError:  # another reference since the site was looked up
            return list_tasks(self._lookup.get_place(anew=True).templates)

    def _list_tasks(self, vms: list[Any], description: str = "") -> list[Any]:
        """List the tasks on VMs that have not ended yet: all, or those of one description."""
        paths = {vim.Task: ["info.state", "info.descriptionId"]}
        spec = build_spec(vms, paths, (vim.VirtualMachine, "recentTask"), may_be_gone=False)
        return [
            task.ref
            for task in self._session.retrieve("list tasks under way", spec)
            if task.values.get("info.state") not in ENDED
            and description in ("", str(task.values.get("info.descriptionId")).lower())
        ]

    def list_open(self, tasks: Iterable[Any]) -> list[Any]:
        """List those of some tasks that have not ended yet; vCenter forgets ended ones."""
        spec = build_spec(tasks, {vim.Task: ["info.state"]})
        readings = self._session.retrieve("look at tasks", spec)
        return [one.ref for one in readings if one.values.get("info.state") not in ENDED]

    def settle(self, tasks: Iterable[Any], limit_s: float) -> None:
        """Wait until tasks have ended, however they end.

        Raises VsphereUnavailableError when one of them does not within `limit_s`.
        """
        for task in tasks:
            with contextlib.suppress(VmGoneError):  # vCenter forgets ended tasks after a while
                self._waiter.wait_for(
                    task,
                    "info.state",
                    lambda state: True if state in ENDED else None,
                    limit_s,
                    "wait for the tasks under way",
                )

    def cancel(self, task: Any) -> None:
        """Ask vCenter to stop a task, if it can; whether it did is seen afterwards."""
        with contextlib.suppress(VsphereError), self._session.cannot("cancel a task"):
            task.CancelTask()
