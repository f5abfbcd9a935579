"""Cloning a guest so that it is there once, whatever becomes of the call and of its task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from provisioner.errors import (
    CapacityError,
    LabctlError,
    NameTakenError,
    NotFoundError,
    RolledBackError,
    TemplateChangedError,
    VmGoneError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import ObservedVm, Ownership
from provisioner.ports import CloneOrder
from provisioner.rules.mark import Installation, build_dossier, build_mark
from provisioner.vsphere.acting import WITHOUT_EFFECT, Acting
from provisioner.vsphere.devices import sort_nics
from provisioner.vsphere.files import Files
from provisioner.vsphere.lookup import Lookup
from provisioner.vsphere.machines import Machine, Machines
from provisioner.vsphere.properties import get_moref
from provisioner.vsphere.session import Session
from provisioner.vsphere.specs import build_clone_spec
from provisioner.vsphere.waiter import Waiter

TROUBLE = (VsphereError, NameTakenError, CapacityError, TemplateChangedError)
"""What a clone can end with. None of it says that the VM is not there."""


@dataclass(frozen=True)
class Cloning:
    """Clones guests, each once."""

    session: Session
    installation: Installation
    lookup: Lookup
    machines: Machines
    acting: Acting
    waiter: Waiter
    files: Files

    def ensure(self, order: CloneOrder, on_task: Callable[[str], None]) -> ObservedVm:
        """Adopt the VM that stands or is coming, or clone it.

        Raises:
            NameTakenError: the name belongs to something that is not this guest.
            NotOwnedError: the instance UUID belongs to a VM without our genuine mark.
            TemplateChangedError: the template is not the pinned one; nothing was cloned.
            NotFoundError: the template, or something else of the site, is gone or not fit.
            RolledBackError: an earlier clone has left files, and vCenter shows no VM of them.
            VsphereUnavailableError: the outcome is unknown; the same call again looks first.
        """
        machine = self._adopt(order)
        if machine is None:
            if order.vim_task:
                self._refuse_leftovers(order)
            machine = self._clone(order, on_task)
        place = self.lookup.get_place()
        networks = (place.get("portgroups", name).title for name in order.networks)
        return sort_nics(machine.vm, networks)

    def _adopt(self, order: CloneOrder) -> Machine | None:
        """Find the VM that stands, or that an earlier call is making, when it is whole."""
        machine = self.machines.find_own(order.identity)
        if machine is not None:
            coming = self.acting.list_clones(order.vm_template)
            return self._look_again(order) if coming else machine
        if order.vim_task:
            task = self.session.refer(vim.Task, order.vim_task)
            doing = f"wait for the clone {order.vm_name}"
            machine, _ = self._follow(task, order, doing, is_mine=False)
        elif order.may_be_coming:
            machine = self._look_again(order)
        # A vCenter that was rolled back may have given the task's key to something else.
        is_its = machine is not None and machine.vm.identity == order.identity
        return self._confirm(machine, order.identity) if machine is not None and is_its else None

    def _refuse_leftovers(self, order: CloneOrder) -> None:
        """A clone call that vCenter took is sent again only when nothing came of it."""
        for store in self.lookup.stores:
            if names := self.files.find_names(store, order.vm_name, "*"):
                raise RolledBackError(
                    f"{self.session.title}: cannot clone {order.vm_name} again: an earlier clone"
                    f" left {', '.join(sorted(names))} in [{store}] {order.vm_name}, and vCenter"
                    " shows no VM of it",
                    hint="vCenter was rolled back, or failed while it cloned: register that VM and"
                    " remove it, or delete the folder, then run the same command again",
                )

    def _clone(self, order: CloneOrder, on_task: Callable[[str], None]) -> Machine:
        doing = f"clone {order.vm_name}"
        trouble: LabctlError | None = None
        for is_again in (False, True, True):
            task, trouble = self._send(order, doing, anew=is_again)
            if task is None:
                machine = self._look_again(order)
            else:
                on_task(get_moref(task))
                machine, trouble = self._follow(task, order, doing, is_mine=True)
            if machine is not None:
                return self._confirm(machine, order.identity)
            if trouble is None or not isinstance(trouble.__cause__, WITHOUT_EFFECT):
                break
            if isinstance(trouble.__cause__, vim.fault.TaskInProgress):
                self.acting.settle_template(order.vm_template, self.session.limits.clone_s)
        raise self._explain(order, doing, trouble) from trouble

    def _send(self, order: CloneOrder, doing: str, *, anew: bool) -> tuple[Any, LabctlError | None]:
        """Send the clone call, once; returns its task, or what it ended with instead."""
        try:
            place = self.lookup.get_place(anew=anew)
            source = self.lookup.get_source(order.vm_template, order.pin)
            spec = build_clone_spec(
                order,
                build_mark(self.installation, order.identity),
                build_dossier(self.installation, order.identity, order.dossier),
                source,
                pool=place.get("placement", "resource_pool"),
                datastore=place.get("datastores", order.datastore),
                portgroups=[place.get("portgroups", name) for name in order.networks],
            )
            folder = place.get("placement", "folder")
            with self.session.cannot(doing):
                task = source.template.CloneVM_Task(folder=folder, name=order.vm_name, spec=spec)
        except TROUBLE as error:
            return None, error
        return task, None

    def _follow(
        self, task: Any, order: CloneOrder, doing: str, *, is_mine: bool
    ) -> tuple[Machine | None, LabctlError | None]:
        """Wait for the end of a clone and take its VM; without one, return what it ended with.

        A clone that does not end in time is cancelled when this call started it. Whether it was
        is seen at its end.
        """
        limit_s = self.session.limits.clone_s
        try:
            made = self.waiter.wait_for_task(task, limit_s, doing)
            if made is not None:
                return self.machines.get(made), None
        except TROUBLE as error:
            if isinstance(error, VsphereUnavailableError):
                if is_mine:
                    self.acting.cancel(task)
                    self.acting.settle([task], limit_s)
                elif self.acting.list_open([task]):
                    raise
            return self.machines.find_own(order.identity), error
        # The task ended well, and vCenter forgot it before it was read.
        return self.machines.find_own(order.identity), None

    def _confirm(self, machine: Machine, identity: GuestIdentity) -> Machine:
        """Check that the new VM got the UUID it was to have, and give it that UUID if not.

        That it is ours is proved by the task that made it and by the genuine mark of this guest.
        """
        vm, wanted = machine.vm, identity.instance_uuid
        if vm.ownership is Ownership.COPY and vm.identity == identity:
            spec = vim.vm.ConfigSpec(instanceUuid=wanted)
            self.acting.run(
                lambda: machine.ref.ReconfigVM_Task(spec=spec),
                f"give {vm.name} its instance UUID",
                self.session.limits.reconfigure_s,
            )
            machine = self.machines.get(machine.ref)
        if machine.vm.instance_uuid != wanted:
            raise VsphereError(
                f"{self.session.title}: {vm.name} ({vm.moref}) was made with instance UUID"
                f" {machine.vm.instance_uuid}, and vCenter does not change it to {wanted}",
                hint="remove that powered off VM by hand, and find out which VM holds the UUID",
            )
        self.machines.require_own(machine, identity)
        return machine

    def _look_again(self, order: CloneOrder) -> Machine | None:
        """Find the VM once no clone is under way that could be it."""
        coming = self.acting.list_clones(order.vm_template)
        self.acting.settle(coming, self.session.limits.clone_s)
        return self.machines.find_own(order.identity)

    def _explain(self, order: CloneOrder, doing: str, trouble: LabctlError | None) -> LabctlError:
        """Say why there is no VM, now that this is sure."""
        if isinstance(trouble, NameTakenError) and not self._is_taken(order.vm_name):
            return VsphereUnavailableError(
                f"{self.session.title}: cannot {doing}: the name is taken by nothing that is shown",
                hint="an earlier clone may still be under way; run the same command again",
            )
        if trouble is None:
            return VmGoneError(f"{self.session.title}: cannot {doing}: it was made and is gone")
        if isinstance(trouble, VsphereError) and not isinstance(trouble, VsphereUnavailableError):
            try:
                self.lookup.get_source(order.vm_template, order.pin)
            except (NotFoundError, TemplateChangedError) as changed:
                return changed
        return trouble

    def _is_taken(self, name: str) -> bool:
        folder = self.lookup.get_place().get("placement", "folder")
        return self.session.read(
            "look into the labs' folder",
            lambda content: content.searchIndex.FindChild(folder, name) is not None,
        )
