"""Which disks a VM was born with: destroying it deletes every one, so a doubtful one is foreign."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from provisioner.model.observed import ObservedVm, Ownership, PowerState
from provisioner.vsphere.devices import list_files, list_foreign_disks, list_own_disks

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
    assert list_foreign_disks(((BORN, BASE), chain), (BORN,)) == ((chain[0],) if foreign else ())


def test_without_a_birth_record_everything_is_foreign() -> None:
    assert list_foreign_disks(((BORN, BASE), (BORN, BASE)), ()) == (BORN,)


VM = ObservedVm("vm-1", "ana", "uuid", Ownership.OURS, None, PowerState.OFF, 1, 1024, (), ())
SNAPSHOT = "[ds1] ana/ana-000001.vmdk"
OTHER = "[ds1] ana/ana_1.vmdk"


@pytest.mark.parametrize(
    ("chains", "count", "found"),
    [
        ([(BORN, BASE)], 1, (BORN,)),
        ([(SNAPSHOT, BORN, BASE), (BORN, BASE)], 1, (BORN,)),
        ([(BORN, BASE), (OTHER, "[ds0] debian-13/debian-13_1.vmdk")], 2, (BORN, OTHER)),
        ([(BORN, BASE), (OTHER, "[ds0] debian-13/debian-13_1.vmdk")], 1, ()),
        ([(BORN, BASE)], 2, ()),
        ([(BORN, BASE), (OTHER,)], 1, (BORN,)),
        ([(OTHER,)], 1, ()),
        ([(BASE,)], 1, ()),
        ([("[ds1] bo/bo.vmdk", BASE)], 1, ()),
        ([("a disk without a file",)], 1, ()),
        ([], 1, ()),
    ],
)
def test_birth_disks_that_nobody_recorded_are_found_or_none(
    chains: list[tuple[str, ...]], count: int, found: tuple[str, ...]
) -> None:
    own_disks = list_own_disks(tuple(chains), "[ds1] ana")
    assert replace(VM, own_disks=own_disks).find_birth_disks(count) == found


def test_the_files_of_a_disk_are_read_from_the_newest_down() -> None:
    disk: Any = vim.vm.device.VirtualDisk
    flat = disk.FlatVer2BackingInfo
    chained = flat(fileName="[ds1] a/a-000001.vmdk", parent=flat(fileName="[ds1] a/a.vmdk"))
    assert list_files(disk(backing=chained)) == ("[ds1] a/a-000001.vmdk", "[ds1] a/a.vmdk")
    assert list_files(disk(backing=disk.LocalPMemBackingInfo())) == ("a disk without a file",)
