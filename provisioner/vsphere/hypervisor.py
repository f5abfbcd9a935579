"""The Hypervisor port on pyVmomi: straight verbs over session, lookup, machines and waiter."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

from pyVmomi import vim

from provisioner.errors import (
    LabctlError,
    NameTakenError,
    TaskFailedError,
    VmGoneError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestIdentity, GuestRecord
from provisioner.model.observed import (
    DestroyOutcome,
    DestroyResult,
    Evidence,
    ObservedSite,
    ObservedVm,
    Ownership,
    PowerState,
    Sight,
)
from provisioner.model.spec import Site
from provisioner.ports import Clock, CloneOrder
from provisioner.rules.mark import Installation, build_mark
from provisioner.vsphere.evidence import Asking
from provisioner.vsphere.lookup import Lookup, Place
from provisioner.vsphere.machines import (
    POWER,
    POWER_PATH,
    Machine,
    Machines,
    choose_address,
    list_foreign_disks,
    sort_nics,
)
from provisioner.vsphere.privileges import check_sight
from provisioner.vsphere.properties import build_spec, get_moref
from provisioner.vsphere.session import Limits, Session
from provisioner.vsphere.specs import build_clone_spec
from provisioner.vsphere.waiter import ENDED, Waiter

ATTEMPTS = 3
CLONE_TASK = "virtualmachine.clone"


class VsphereHypervisor:
    """The vCenter of one site, for one installation. It logs in when first used.

    Args:
        site: where it is and what is used there.
        installation: whose marks are ours.
        password: gives the account's password; called once vCenter's certificate was found good.
        clock: the time of evidence.
        limits: how long vCenter may take.
    """

    def __init__(
        self,
        site: Site,
        installation: Installation,
        password: Callable[[], str],
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        self._site = site
        self._installation = installation
        self._clock = clock
        self._limits = limits or Limits()
        self._session = Session(site.vcenter, password, self._limits)
        self._lookup = Lookup(self._session, site)
        self._machines = Machines(self._session, installation)
        self._waiter = Waiter(self._session, clock)
        self._place: Place | None = None
        self._place_lock = threading.Lock()

    # -- reading ----------------------------------------------------------------------------------

    def observe_site(self) -> ObservedSite:
        """Read what a plan needs, without a write."""
        place = self._get_place(anew=True)
        content, _ = self._session.open()
        folder = place.placement.get("folder")
        return ObservedSite(
            vcenter_uuid=str(content.about.instanceUuid),
            vcenter_name=f"{self._session.title} ({content.about.name} {content.about.version})",
            datastores=place.observed_datastores,
            templates=place.observed_templates,
            vm_names=self._lookup.list_names(folder) if folder else (),
            problems=place.problems,
        )

    def check_sight(self) -> Sight:
        """Read what proves that an empty answer means "gone"."""
        return check_sight(self._session, self._get_place(anew=True))

    def find_vm(self, identity: GuestIdentity) -> ObservedVm | None:
        """Find the genuine VM of this identity by its instance UUID; None when there is none."""
        machine = self._machines.find(identity)
        if machine is None or machine.vm.ownership is not Ownership.OURS:
            return None
        return machine.vm if machine.vm.identity == identity else None

    def list_marked_vms(self) -> tuple[ObservedVm, ...]:
        """List every VM of the whole vCenter that carries a labctl mark, whoever made it."""
        return tuple(machine.vm for machine in self._machines.list_marked())

    def collect_evidence(self, lab_id: str, guests: Iterable[GuestRecord]) -> tuple[Evidence, ...]:
        """Ask vCenter for everything that could be left of a lab, object by object."""
        asking = Asking(self._session, self._machines, self._waiter, self._get_place, self._clock)
        return asking.collect(lab_id, guests)

    # -- coming -----------------------------------------------------------------------------------

    def ensure_clone(self, order: CloneOrder, on_task: Callable[[str], None]) -> ObservedVm:
        """Clone, powered off, with mark, size, network and guestinfo in the one clone call.

        Raises:
            NameTakenError: the name belongs to something that is not this guest.
            NotOwnedError: the instance UUID belongs to a VM without our genuine mark.
            VsphereUnavailableError: the outcome is unknown; the same call again looks first.
        """
        place = self._get_place()
        template = place.get("templates", order.vm_template)
        machine = self._machines.find_own(order.identity)
        if machine is None:
            machine = self._clone(place, template, order, on_task)
        elif self._list_clone_tasks([template]):
            self._settle_clones([template])
            machine = self._machines.get_own(order.identity)
        networks = (place.get("portgroups", name).title for name in order.networks)
        return sort_nics(machine.vm, networks)

    def _clone(
        self, place: Place, template: Any, order: CloneOrder, on_task: Callable[[str], None]
    ) -> Machine:
        doing = f"clone {order.vm_name}"
        source = self._lookup.get_source(template, self._site.vm_templates[order.vm_template])
        spec = build_clone_spec(
            order,
            build_mark(self._installation, order.identity),
            source,
            pool=place.get("placement", "resource_pool"),
            datastore=place.get("datastores", order.datastore),
            portgroups=[place.get("portgroups", name) for name in order.networks],
        )
        folder = place.get("placement", "folder")
        task: Any = None
        try:
            with self._session.cannot(doing):
                task = template.CloneVM_Task(folder=folder, name=order.vm_name, spec=spec)
            on_task(get_moref(task))
            ref = self._waiter.wait_for_task(task, self._limits.clone_s, doing)
        except (NameTakenError, VsphereUnavailableError) as error:
            # Taken by an earlier call of ours, or the answer was lost: look before anything else.
            if isinstance(error, VsphereUnavailableError):
                self._cancel(task)
            self._settle_clones([template])
            machine = self._machines.find_own(order.identity)
            if machine is None:
                raise
            return machine
        if ref is None:  # the task ended well, and vCenter forgot it before it was read
            return self._machines.get_own(order.identity)
        return self._confirm(self._machines.get(ref), order.identity)

    def _confirm(self, machine: Machine, identity: GuestIdentity) -> Machine:
        """Check that the new VM got the UUID it was to have, and give it that UUID if not.

        That it is ours is proved by the task that made it and by the genuine mark of this guest.
        """
        vm, wanted = machine.vm, identity.instance_uuid
        if vm.ownership is Ownership.COPY and vm.identity == identity:
            doing = f"give {vm.name} its instance UUID"
            spec = vim.vm.ConfigSpec(instanceUuid=wanted)
            self._run(lambda: machine.ref.ReconfigVM_Task(spec=spec), doing, "reconfigure_s")
            machine = self._machines.get(machine.ref)
        if machine.vm.instance_uuid != wanted:
            raise VsphereError(
                f"{self._session.title}: {vm.name} ({vm.moref}) was made with instance UUID"
                f" {machine.vm.instance_uuid}, and vCenter does not change it to {wanted}",
                hint="remove that powered off VM by hand, and find out which VM holds the UUID",
            )
        self._machines.require_own(machine, identity)
        return machine

    def ensure_powered_on(self, identity: GuestIdentity) -> None:
        """Bring the VM to powered on."""
        doing = f"power on guest {identity.slot} of lab {identity.lab_id}"
        self._bring(
            identity,
            PowerState.ON,
            lambda machine: self._run(machine.ref.PowerOnVM_Task, doing, "power_s"),
        )

    def ensure_powered_off(self, identity: GuestIdentity, *, grace_s: float) -> None:
        """Bring the VM to powered off: ask the guest first, pull the plug after `grace_s`."""
        machine = self._machines.get_own(identity)
        if machine.vm.power_state is PowerState.ON and machine.tools_running and grace_s > 0:
            self._shut_down(machine, grace_s)
        self._pull_the_plug(identity)

    def _shut_down(self, machine: Machine, grace_s: float) -> None:
        """Ask the guest to shut down; that it does not is no error."""
        doing = f"shut down {machine.vm.name}"
        try:
            with self._session.cannot(doing):
                machine.ref.ShutdownGuest()
            self._waiter.wait_for(
                machine.ref,
                POWER_PATH,
                lambda state: True if POWER.get(state) is PowerState.OFF else None,
                grace_s,
                doing,
            )
        except (TaskFailedError, VsphereUnavailableError):
            return

    def _pull_the_plug(self, identity: GuestIdentity) -> None:
        doing = f"power off guest {identity.slot} of lab {identity.lab_id}"
        self._bring(
            identity,
            PowerState.OFF,
            lambda machine: self._run(machine.ref.PowerOffVM_Task, doing, "power_s"),
        )

    def _bring(
        self, identity: GuestIdentity, wanted: PowerState, act: Callable[[Machine], Any]
    ) -> None:
        """Act until the VM is as wanted. What happened meanwhile is read before acting again."""
        machine = self._machines.get_own(identity)
        for _ in range(ATTEMPTS):
            if machine.vm.power_state is wanted:
                return
            try:
                act(machine)
            except (TaskFailedError, VsphereUnavailableError):
                before, machine = machine, self._machines.get_own(identity)
                if machine.vm.power_state is before.vm.power_state:
                    raise
            else:
                return
        if machine.vm.power_state is not wanted:
            raise TaskFailedError(
                f"{self._session.title}: {machine.vm.name} does not stay {wanted}",
                hint="find out what in vCenter does that, such as HA or an operator, and stop it",
            )

    # -- waiting ----------------------------------------------------------------------------------

    def wait_for_guestinfo(self, identity: GuestIdentity, key: str, timeout_s: float) -> str:
        """Wait until the guest has published `key`, and return its text."""
        machine = self._machines.get_own(identity)
        return self._waiter.wait_for(
            machine.ref,
            f'config.extraConfig["{key}"]',
            lambda option: str(option.value) or None if option is not None else None,
            timeout_s,
            f"see {key} of {machine.vm.name}",
        )

    def wait_for_address(self, identity: GuestIdentity, mac: str, timeout_s: float) -> str:
        """Wait for an address of the NIC with that MAC (never another bridge's) and return it."""
        machine = self._machines.get_own(identity)
        return self._waiter.wait_for(
            machine.ref,
            "guest.net",
            lambda nics: choose_address(nics or (), mac),
            timeout_s,
            f"see an address of {machine.vm.name}",
        )

    # -- going ------------------------------------------------------------------------------------

    def destroy_vm(self, identity: GuestIdentity, birth_disks: tuple[str, ...]) -> DestroyOutcome:
        """Destroy the VM and its disks; a foreign disk stops it before anything is touched.

        Raises:
            NotOwnedError: what bears the UUID has no genuine mark of this guest.
        """
        doing = f"destroy guest {identity.slot} of lab {identity.lab_id}"
        if self._find_own_or_coming(identity) is None:
            return DestroyOutcome(DestroyResult.ALREADY_GONE, "vCenter knows no VM of its UUID")
        try:
            for _ in range(ATTEMPTS):
                machine = self._machines.get_own(identity)
                if foreign := list_foreign_disks(machine, birth_disks):
                    return _build_residue(machine, foreign)
                if machine.vm.power_state is not PowerState.OFF:
                    self._pull_the_plug(identity)
                elif self._destroy(machine, identity, doing):
                    return DestroyOutcome(DestroyResult.DESTROYED)
        except VmGoneError:
            return DestroyOutcome(DestroyResult.ALREADY_GONE, "it went while it was worked on")
        raise TaskFailedError(
            f"{self._session.title}: cannot {doing}: it is powered on again and again",
            hint="find out what in vCenter does that, such as HA or an operator, and stop it",
        )

    def _destroy(self, machine: Machine, identity: GuestIdentity, doing: str) -> bool:
        """Destroy a VM that is off; False when it turned out to be on."""
        try:
            self._run(machine.ref.Destroy_Task, doing, "destroy_s")
        except (TaskFailedError, VsphereUnavailableError):
            left = self._machines.find_own(identity)
            if left is not None and left.vm.power_state is PowerState.OFF:
                raise
            return left is None
        return True

    def _find_own_or_coming(self, identity: GuestIdentity) -> Machine | None:
        """Find the VM; when there is none, wait for clones under way, for it may be one of them."""
        machine = self._machines.find_own(identity)
        templates = list(self._get_place().templates.values())
        if machine is None and self._list_clone_tasks(templates):
            self._settle_clones(templates)
            machine = self._machines.find_own(identity)
        return machine

    def close(self) -> None:
        """Log out. Never raises."""
        self._waiter.close()
        self._session.close()

    # -- how --------------------------------------------------------------------------------------

    def _get_place(self, *, anew: bool = False) -> Place:
        with self._place_lock:
            if self._place is None or anew:
                self._place = self._lookup.resolve()
            return self._place

    def _run(self, start: Callable[[], Any], doing: str, limit: str) -> Any:
        """Start a vim task, once, and wait for its end."""
        with self._session.cannot(doing):
            task = start()
        return self._waiter.wait_for_task(task, getattr(self._limits, limit), doing)

    def _cancel(self, task: Any) -> None:
        """Ask vCenter to stop a task, if it can; whether it did is seen afterwards."""
        if task is None:
            return
        try:
            with self._session.cannot("cancel the clone"):
                task.CancelTask()
        except LabctlError:
            return

    def _list_clone_tasks(self, templates: list[Any]) -> list[Any]:
        """List clones of templates that have not ended yet."""
        spec = build_spec(
            templates,
            {vim.Task: ["info.state", "info.descriptionId"]},
            (vim.VirtualMachine, "recentTask"),
        )
        tasks = self._session.retrieve("list clones under way", spec) if templates else ()
        return [
            task.ref
            for task in tasks
            if str(task.values.get("info.descriptionId")).lower() == CLONE_TASK
            and task.values.get("info.state") not in ENDED
        ]

    def _settle_clones(self, templates: list[Any]) -> None:
        """Wait until no clone of the templates is under way any more."""
        for task in self._list_clone_tasks(templates):
            doing = "wait for the clones under way"
            with contextlib.suppress(VmGoneError):  # vCenter forgets ended tasks after a while
                self._waiter.wait_for(
                    task,
                    "info.state",
                    lambda state: True if state in ENDED else None,
                    self._limits.clone_s,
                    doing,
                )


def _build_residue(machine: Machine, foreign: tuple[str, ...]) -> DestroyOutcome:
    detail = (
        f"{machine.vm.name} ({machine.vm.moref}) holds a disk it was not born with: "
        f"{', '.join(foreign)}; destroying the VM would delete it: detach it, then tear down again"
    )
    return DestroyOutcome(DestroyResult.RESIDUE, detail)
