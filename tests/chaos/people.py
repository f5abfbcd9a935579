"""People with vCenter's own client, and what they know of who owns what there.

They judge by what they did themselves and by the bare words of a mark: never through labctl.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from uuid import UUID

from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import PowerState
from provisioner.rules.mark import Installation, build_mark
from tests.chaos.house import OURS
from tests.fakes.vcenter import TEMPLATE_DISK, FakeVcenter, FakeVm

THEIRS = Installation("there", b"t" * 32)
MANY_EVENTS = 100_000
Identity = tuple[str, int, str]


class People:
    """What they did: VMs and files that are not labctl's, and guests that they took away.

    `foreign` are VMs that are not labctl's, as they were last left. `taken` are guests whose VM
    they removed or defaced. `hidden` are VMs that run while a restored vCenter does not know them.
    """

    def __init__(self, vcenter: FakeVcenter) -> None:
        self.vcenter = vcenter
        self.foreign: dict[str, FakeVm] = {}
        self.foreign_files: set[str] = set()
        self.left_files: set[str] = set()
        self.taken: set[Identity] = set()
        self.defaced: set[Identity] = set()
        self.hidden: list[FakeVm] = []

    # -- looking ------------------------------------------------------------------------------

    def list_genuine(self) -> list[FakeVm]:
        """List labctl's VMs, oldest first: the mark says so, and names this very VM."""
        every = [*self.vcenter.vms.values(), *self.hidden]
        return [vm for vm in every if vm.moref not in self.foreign and name_guest(vm)]

    def find_doubles(self) -> list[Identity | None]:
        """Find guests that have more than one VM."""
        counted = Counter(name_guest(vm) for vm in self.list_genuine())
        return [guest for guest, number in counted.items() if number > 1]

    def find_harm(self) -> list[str]:
        """Find what is not labctl's and is not as it was left."""
        vms = self.vcenter.vms
        lost = sorted(self.foreign_files - self.vcenter.files)
        changed = [vm.name for moref, vm in self.foreign.items() if vms.get(moref) != vm]
        return [*lost, *changed]

    # -- making -------------------------------------------------------------------------------

    def plant(self, name: str) -> None:
        """Make a VM without a mark; when the name is taken, it gets the next one."""
        taken = {vm.name for vm in self.vcenter.vms.values()}
        self._make(f"{name}-{self._count()}" if name in taken else name)

    def install_another(self, lab_id: str, slot: str) -> None:
        """Another installation has a lab of the same name."""
        uuid = self._new_uuid()
        mark = build_mark(THEIRS, GuestIdentity(lab_id, 1, slot, uuid))
        self._make(f"{lab_id}-{slot}-there", uuid, mark=mark)

    def copy(self, vm: FakeVm) -> None:
        """Clone a lab's VM by hand: everything is the same but its UUID."""
        self._make(f"copy-{self._count()}", mark=vm.mark, dossier=vm.dossier)

    def _make(self, name: str, uuid: str = "", **values: str) -> None:
        """Make a VM; its files go into a folder of a name that is still free."""
        folder = f"{name}_{self._count()}"
        vm = self.vcenter.add_vm(folder, uuid or self._new_uuid(), **values)
        vm.name = name
        self._own(vm)

    def _new_uuid(self) -> str:
        return str(UUID(int=self._count()))

    def _count(self) -> int:
        return next(self.vcenter.numbers)

    def _own(self, vm: FakeVm) -> None:
        self.foreign[vm.moref] = replace(vm)
        self.foreign_files |= list_own_files(vm)

    # -- meddling -----------------------------------------------------------------------------

    def rename(self, vm: FakeVm) -> None:
        vm.name = f"renamed-{self._count()}"

    def move(self, vm: FakeVm) -> None:
        vm.folder = "/DC0/vm/elsewhere"

    def power_off(self, vm: FakeVm) -> None:
        vm.power_state = PowerState.OFF
        vm.nics = [replace(nic, connected=False) for nic in vm.nics]
        self.vcenter.happen()

    def attach_disk(self, vm: FakeVm) -> None:
        """Attach a disk with somebody's data; vCenter puts a new one into the VM's own folder."""
        folder = vm.disks[0][0].rpartition("/")[0] if vm.disks else "[datastore-1] payroll"
        file = f"{folder}/payroll-{self._count()}.vmdk"
        vm.disks = [*vm.disks, (file,)]
        self.vcenter.files.add(file)
        self.foreign_files.add(file)

    def detach_disks(self, vm: FakeVm) -> None:
        """Detach what is not the VM's; its file stays."""
        vm.disks = [chain for chain in vm.disks if not set(chain) & self.foreign_files]

    def snapshot(self, vm: FakeVm) -> None:
        number = len(vm.snapshots) + 1
        vm.snapshots.append(f"by hand {number}")
        vm.held_by_snapshots += vm.disks
        tops = [f"{chain[0].removesuffix('.vmdk')}-{number:06}.vmdk" for chain in vm.disks]
        vm.disks = [(top, *chain) for top, chain in zip(tops, vm.disks, strict=True)]
        self.vcenter.files.update(tops)
        self.foreign_files |= {
            chain[0] for chain in vm.disks if set(chain[1:]) & self.foreign_files
        }

    # -- taking away --------------------------------------------------------------------------

    def delete(self, vm: FakeVm) -> None:
        """Delete a VM from disk, with all that is attached to it."""
        self._take(vm)
        files = list_own_files(vm)
        self.vcenter.files -= files
        self.foreign_files -= files
        del self.vcenter.vms[vm.moref]
        self.vcenter.happen()

    def unregister(self, vm: FakeVm) -> None:
        """Take a VM out of the inventory; its files stay."""
        self._take(vm)
        self.left_files |= list_own_files(vm) - self.foreign_files
        del self.vcenter.vms[vm.moref]
        self.vcenter.happen()

    def deface(self, vm: FakeVm) -> None:
        """Take the mark away: from now on it is nobody's."""
        self._take(vm)
        self.defaced |= {guest for guest in [name_guest(vm)] if guest}
        vm.mark = ""
        self._own(vm)

    def _take(self, vm: FakeVm) -> None:
        self.taken |= {guest for guest in [name_guest(vm)] if guest}

    def restore_vcenter(self, vm: FakeVm) -> None:
        """Put vCenter back from a backup of a time when it did not know this VM, which runs on."""
        if self.hidden:
            return
        self.vcenter.events -= MANY_EVENTS
        self.hidden.append(self.vcenter.vms.pop(vm.moref))

    def make_good(self) -> None:
        """Undo what keeps labs from ending."""
        if self.hidden:
            self.vcenter.events += 2 * MANY_EVENTS
            self.vcenter.vms.update((vm.moref, vm) for vm in self.hidden)
            self.hidden.clear()
        for vm in self.list_genuine():
            self.detach_disks(vm)
            vm.held_by_snapshots = [
                chain for chain in vm.held_by_snapshots if not set(chain) & self.foreign_files
            ]
        self.vcenter.files -= self.left_files


def list_own_files(vm: FakeVm) -> set[str]:
    """List a VM's files, those of its snapshots too."""
    chains = (*vm.disks, *vm.held_by_snapshots)
    return {file for chain in chains for file in chain} - {TEMPLATE_DISK}


def name_guest(vm: FakeVm) -> Identity | None:
    """Read from its bare mark which guest of this installation a VM is; None when it is none."""
    return _name_guest(vm.mark, vm.instance_uuid)


@lru_cache
def _name_guest(text: str, instance_uuid: str) -> Identity | None:
    mark = json.loads(text) if text else {}
    ours = mark.get("installation") == OURS.installation_id
    if not ours or mark["uuid"] != instance_uuid:
        return None
    return mark["lab"], mark["generation"], mark["slot"]
