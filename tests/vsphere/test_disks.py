"""Which disks a VM was born with: destroying it deletes every one, so a doubtful one is foreign."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from provisioner.model.observed import ObservedVm, Ownership, PowerState
from provisioner.vsphere.machines import Machine, list_files, list_foreign_disks

VM = ObservedVm("vm-1", "ana", "uuid", Ownership.OURS, None, PowerState.OFF, 1, 512, (), ())
BORN = "[ds1] ana/ana.vmdk"
BASE = "[ds0] debian-13/debian-13.vmdk"


@pytest.mark.parametrize(
    ("chain", "foreign"),
    [
        ((BORN, BASE), False),
        ((BORN,), False),
        (("[ds1] ana/ana-000001.vmdk", BORN, BASE), False),
        (("[ds1] ana/ana-000002.vmdk", "[ds1] ana/ana-000001.vmdk", BORN, BASE), False),
        (("[ds1] ana/ana_1.vmdk",), True),
        (("[ds1] ana/ana_1-000001.vmdk", "[ds1] ana/ana_1.vmdk"), True),
        ((BASE,), True),
        (("[ds1] bo/bo.vmdk", BASE), True),
        (("[ds1] bo/bo.vmdk", BORN, BASE), True),
        (("[ds2] ana/ana.vmdk", BASE), True),
        (("a disk without a file",), True),
    ],
    ids=lambda case: case[0] if isinstance(case, tuple) else None,
)
def test_a_disk_is_born_or_foreign(chain: tuple[str, ...], foreign: bool) -> None:  # noqa: FBT001 - a case
    machine = Machine(None, VM, tools_running=False, disk_chains=((BORN, BASE), chain))
    assert list_foreign_disks(machine, (BORN,)) == ((chain[0],) if foreign else ())


def test_without_a_birth_record_everything_is_foreign() -> None:
    machine = Machine(None, VM, tools_running=False, disk_chains=((BORN, BASE), (BORN, BASE)))
    assert list_foreign_disks(machine, ()) == (BORN,)


def test_the_files_of_a_disk_are_read_from_the_newest_down() -> None:
    disk: Any = vim.vm.device.VirtualDisk
    flat = disk.FlatVer2BackingInfo
    chained = flat(fileName="[ds1] a/a-000001.vmdk", parent=flat(fileName="[ds1] a/a.vmdk"))
    assert list_files(disk(backing=chained)) == ("[ds1] a/a-000001.vmdk", "[ds1] a/a.vmdk")
    assert list_files(disk(backing=disk.LocalPMemBackingInfo())) == ("a disk without a file",)
