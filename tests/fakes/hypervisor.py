"""A Hypervisor on the vCenter in memory; the guest behind each VM boots at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from provisioner.errors import (
    GuestUnreachableError,
    LabctlError,
    NameTakenError,
    NotFoundError,
    NotOwnedError,
    StoppedError,
    TemplateChangedError,
    VmGoneError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestIdentity, GuestRecord, TemplatePin
from provisioner.model.observed import (
    Connection,
    DestroyOutcome,
    DestroyResult,
    Evidence,
    ObservedDatastore,
    ObservedDisk,
    ObservedSite,
    ObservedTemplate,
    ObservedVm,
    Ownership,
    PowerState,
    Sight,
)
from provisioner.model.spec import Site
from provisioner.ports import Clock, CloneOrder
from provisioner.rules.mark import (
    Installation,
    build_dossier,
    build_mark,
    read_dossier,
    read_mark,
)
from tests.fakes.vcenter import DATASTORES, DISK_GIB, TEMPLATE_DISK, FakeVcenter, FakeVm


class FakeHypervisor:
    """The port on a FakeVcenter.

    `failures[verb]` are errors that the next calls of a verb raise, one each. `on_boot` is what
    guests do when they are powered on; by itself each NIC gets an address.
    """

    def __init__(
        self, site: Site, installation: Installation, clock: Clock, vcenter: FakeVcenter
    ) -> None:
        self.site, self.installation, self.clock, self.vcenter = site, installation, clock, vcenter
        self.failures: dict[str, list[LabctlError]] = {}
        self.on_boot: Callable[[FakeVm], None] = lambda _: None
        self.closed = False

    @contextmanager
    def _verb(self, name: str) -> Iterator[FakeVcenter]:
        with self.vcenter.changed:
            if self.closed:
                raise StoppedError("the session was closed")
            if waiting := self.failures.get(name):
                raise waiting.pop(0)
            yield self.vcenter

    def observe_site(self) -> ObservedSite:
        with self._verb("observe_site") as vcenter:
            return ObservedSite(
                vcenter_uuid=vcenter.uuid,
                vcenter_name="vCenter in memory",
                datastores=tuple(
                    ObservedDatastore(name, DATASTORES[name], usable=True)
                    for name in self.site.placement.datastores
                    if name in DATASTORES
                ),
                templates=tuple(
                    ObservedTemplate(name, one.path, one.path in vcenter.inventory, float(DISK_GIB))
                    for name, one in self.site.vm_templates.items()
                ),
                vm_names=tuple(sorted(vm.name for vm in vcenter.vms.values())),
                problems=self._list_problems(),
            )

    def _list_problems(self) -> tuple[str, ...]:
        place = self.site.placement
        paths = {
            "placement.datacenter": place.datacenter,
            "placement.folder": place.folder,
            "placement.resource_pool": place.resource_pool,
            **{f"networks.{name}": path for name, path in self.site.networks.items()},
            **{f"vm_templates.{name}": one.path for name, one in self.site.vm_templates.items()},
        }
        return (
            *(
                f"{setting}: {path} is nothing that this account can see"
                for setting, path in paths.items()
                if path not in self.vcenter.inventory
            ),
            *(
                f"placement.datastores: no datastore {name}"
                for name in place.datastores
                if name not in DATASTORES
            ),
        )

    def check_sight(self) -> Sight:
        with self._verb("check_sight") as vcenter:
            return Sight(vcenter.uuid, vcenter.events, (), self._list_problems())

    def read_clock(self) -> datetime:
        with self._verb("read_clock"):
            return self.clock.now()

    def pin_template(self, vm_template: str) -> TemplatePin:
        with self._verb("pin_template"):
            return self._pin(vm_template)

    def _pin(self, vm_template: str) -> TemplatePin:
        if self.site.vm_templates[vm_template].path not in self.vcenter.inventory:
            raise NotFoundError(f"cannot clone {vm_template}: it is gone")
        return self.vcenter.template

    def find_vm(self, identity: GuestIdentity) -> ObservedVm | None:
        with self._verb("find_vm"):
            vm = self._find(identity.instance_uuid)
            if vm is None:
                return None
            if vm.connection is Connection.INACCESSIBLE:
                raise VsphereUnavailableError(f"{vm.name} is inaccessible")
            seen = self._observe(vm)
            ours = seen.ownership is Ownership.OURS and seen.identity == identity
            return seen if ours else None

    def list_marked_vms(self) -> tuple[ObservedVm, ...]:
        with self._verb("list_marked_vms") as vcenter:
            return tuple(self._observe(vm) for vm in vcenter.vms.values() if vm.mark)

    def ensure_clone(self, order: CloneOrder, on_task: Callable[[str], None]) -> ObservedVm:
        with self._verb("ensure_clone") as vcenter:
            vm = self._find_own(order.identity)
            if vm is not None:
                return self._observe(vm)
            if self._pin(order.vm_template) != order.pin:
                raise TemplateChangedError(f"{order.vm_template} changed since it was pinned")
            if order.datastore not in DATASTORES:
                raise NotFoundError(f"the site has no usable {order.datastore}")
            on_task(f"task-{next(vcenter.numbers)}")
            if any(one.name == order.vm_name for one in vcenter.vms.values()):
                raise NameTakenError(f"cannot clone {order.vm_name}: the name is taken")
            vm = vcenter.add_vm(order.vm_name, order.identity.instance_uuid)
            vm.mark = build_mark(self.installation, order.identity)
            vm.cpus, vm.memory_mib = order.cpus, order.memory_mib
            vm.guestinfo = dict(order.guestinfo)
            vm.dossier = build_dossier(self.installation, order.identity, order.dossier)
            vcenter.files -= {file for chain in vm.disks for file in chain}
            vm.disks = [(f"[{order.datastore}] {vm.name}/{vm.name}.vmdk", TEMPLATE_DISK)]
            vcenter.files.update(vm.disks[0])
            vm.nics = [vcenter.new_nic(at, name) for at, name in enumerate(order.networks)]
            return self._observe(vm)

    def ensure_powered_on(self, identity: GuestIdentity) -> None:
        with self._verb("ensure_powered_on") as vcenter:
            vm = self._get_own(identity)
            if vm.power_state is PowerState.ON:
                return
            vm.power_state = PowerState.ON
            vm.nics = [replace(nic, connected=not vm.is_sealed) for nic in vm.nics]
            for nic in vm.nics:
                octet = int(nic.mac[-2:], 16)
                vm.addresses.setdefault(nic.mac, f"198.18.0.{octet}")
            self.on_boot(vm)
            vcenter.happen()

    def ensure_powered_off(self, identity: GuestIdentity, *, grace_s: float) -> None:  # noqa: ARG002 - guests in memory stop at once
        with self._verb("ensure_powered_off") as vcenter:
            vm = self._get_own(identity)
            vm.power_state = PowerState.OFF
            vm.nics = [replace(nic, connected=False) for nic in vm.nics]
            vcenter.happen()

    def ensure_networks(self, identity: GuestIdentity, *, connected: bool) -> None:
        with self._verb("ensure_networks") as vcenter:
            vm = self._get_own(identity)
            vm.is_sealed = not connected
            is_on = vm.power_state is PowerState.ON
            vm.nics = [replace(nic, connected=connected and is_on) for nic in vm.nics]
            vcenter.happen()

    def write_dossier(self, identity: GuestIdentity, dossier: str) -> None:
        with self._verb("write_dossier") as vcenter:
            vm = self._get_own(identity)
            vm.dossier = build_dossier(self.installation, identity, dossier)
            vcenter.happen()

    def wait_for_guestinfo(self, identity: GuestIdentity, key: str, timeout_s: float) -> str:
        with self._verb("wait_for_guestinfo"):
            return self._wait(identity, lambda vm: vm.guestinfo.get(key), timeout_s)

    def wait_for_address(self, identity: GuestIdentity, mac: str, timeout_s: float) -> str:
        with self._verb("wait_for_address"):
            return self._wait(
                identity,
                lambda vm: vm.addresses.get(mac) if vm.power_state is PowerState.ON else None,
                timeout_s,
            )

    def _wait(
        self, identity: GuestIdentity, look: Callable[[FakeVm], str | None], timeout_s: float
    ) -> str:
        found: list[str] = []

        def seen() -> bool:
            found.extend(filter(None, [look(self._get_own(identity))]))
            return bool(found)

        if not self.vcenter.changed.wait_for(seen, timeout_s):
            raise GuestUnreachableError(f"not within {timeout_s:g} s")
        return found[0]

    def destroy_vm(self, guest: GuestRecord) -> DestroyOutcome:
        with self._verb("destroy_vm") as vcenter:
            vm = self._find_own(guest.identity)
            if vm is None:
                return DestroyOutcome(DestroyResult.ALREADY_GONE)
            chains = [*vm.disks, *vm.held_by_snapshots]
            born = set(guest.birth_disks)
            if not born and guest.pin is not None:
                own = {chain[-2] for chain in chains if _is_own(chain)}
                born = own if len(own) == guest.pin.disk_count else set()
            foreign = [chain[0] for chain in chains if not set(chain) & born]
            obstacles = {
                f"it is {vm.connection}": vm.connection is not Connection.CONNECTED,
                f"it holds a disk it was not born with: {', '.join(foreign)}": foreign,
                "vCenter forbids Destroy_Task": "Destroy_Task" in vm.disabled_methods,
            }
            for why in (why for why, is_so in obstacles.items() if is_so):
                return DestroyOutcome(DestroyResult.RESIDUE, f"{vm.name}: {why}")
            vcenter.files -= {file for chain in chains for file in chain} - {TEMPLATE_DISK}
            del vcenter.vms[vm.moref]
            vcenter.happen()
            return DestroyOutcome(DestroyResult.DESTROYED)

    def collect_evidence(self, lab_id: str, guests: Iterable[GuestRecord]) -> tuple[Evidence, ...]:
        vms, files = self.vcenter.vms, self.vcenter.files
        rows: list[tuple[str, str, GuestRecord | None, bool | None]] = []
        for guest in guests:
            own = self._find(guest.identity.instance_uuid)
            rows.append(("uuid", guest.vm_name, guest, own is None))
            rows.append(("moref", guest.vm_name, guest, guest.moref not in vms))
            named = own is not None and own.name == guest.vm_name
            rows.append(("name", guest.vm_name, guest, not named))
            rows += [("disk", path, guest, path not in files) for path in guest.birth_disks]
            if guest.pin is not None and not guest.birth_disks:
                folders = [f"[{store}] {guest.vm_name}" for store in DATASTORES]
                held = {path.rpartition("/")[0] for path in files}
                rows += [("folder", one, guest, None if one in held else True) for one in folders]
        marked = [self._observe(vm) for vm in vms.values()]
        ours = [vm for vm in marked if vm.ownership is Ownership.OURS and vm.identity]
        left = any(vm.identity.lab_id == lab_id for vm in ours if vm.identity)
        rows.append(("mark", lab_id, None, not left))
        return tuple(self._build_row(*row) for row in rows)

    def _build_row(
        self,
        kind: str,
        name: str,
        guest: GuestRecord | None,
        gone: bool | None,  # noqa: FBT001 - the last word of a row
    ) -> Evidence:
        moref, uuid = (guest.moref, guest.identity.instance_uuid) if guest else ("", "")
        answer, known = ("gone" if gone else "it is there"), True
        try:
            with self._verb("collect_evidence"):
                pass
        except VsphereUnavailableError:
            raise
        except LabctlError as error:
            answer, known = f"not answered: {error.what}", False
        return Evidence(kind, name, moref, uuid, self.clock.now(), answer, gone if known else None)

    def close(self) -> None:
        self.closed = True

    def _find(self, uuid: str) -> FakeVm | None:
        return next((vm for vm in self.vcenter.vms.values() if vm.instance_uuid == uuid), None)

    def _find_own(self, identity: GuestIdentity) -> FakeVm | None:
        vm = self._find(identity.instance_uuid)
        if vm is not None:
            seen = self._observe(vm)
            if seen.ownership is not Ownership.OURS or seen.identity != identity:
                raise NotOwnedError(
                    f"{vm.name} bears the UUID of {identity.slot}, but not its mark"
                )
        return vm

    def _get_own(self, identity: GuestIdentity) -> FakeVm:
        vm = self._find_own(identity)
        if vm is None:
            raise VmGoneError(f"guest {identity.slot} of lab {identity.lab_id} has no VM")
        return vm

    def _observe(self, vm: FakeVm) -> ObservedVm:
        ownership, identity = read_mark(self.installation, vm.mark, vm.instance_uuid)
        ours = identity if ownership is Ownership.OURS else None
        return ObservedVm(
            moref=vm.moref,
            name=vm.name,
            instance_uuid=vm.instance_uuid,
            ownership=ownership,
            identity=identity,
            power_state=vm.power_state,
            cpus=vm.cpus,
            memory_mib=vm.memory_mib,
            disks=tuple(
                ObservedDisk(2000 + at, chain[0], DISK_GIB * 1024)
                for at, chain in enumerate(vm.disks)
            ),
            nics=tuple(vm.nics),
            snapshots=tuple(vm.snapshots),
            folder=vm.folder,
            created_at=vm.created_at,
            connection=vm.connection,
            disabled_methods=vm.disabled_methods,
            dossier=read_dossier(self.installation, ours, vm.dossier) if ours else "",
            own_disks=tuple(
                sorted(
                    {chain[-2] for chain in (*vm.disks, *vm.held_by_snapshots) if _is_own(chain)}
                )
            ),
        )


def _is_own(chain: tuple[str, ...]) -> bool:
    return len(chain) > 1 and chain[-1] == TEMPLATE_DISK
