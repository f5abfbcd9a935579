"""What of a guest differs from its record: in size, networks, disks, place or power."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from provisioner.model.lab import GuestRecord, GuestState, Lab, LabState
from provisioner.model.observed import (
    Connection,
    ObservedVm,
    Ownership,
    PowerState,
)
from provisioner.model.spec import GuestSpec, Site
from provisioner.rules.plain_text import build_plain_line

SNAPSHOT_DISK = re.compile(r"-\d{6}(?=\.vmdk$)")
"""What a snapshot adds to the name of the disk that goes on from there."""
SWITCH_KEY = "dvportgroup-"
"""How the keys of distributed portgroups begin: vCenter shows a NIC's, and no name."""
MIB_PER_GIB = 1024
POWER = {LabState.READY: PowerState.ON, LabState.EXPIRED: PowerState.OFF}


@dataclass(frozen=True)
class Difference:
    """One thing that is not as recorded, in plain words."""

    what: str
    recorded: str
    observed: str


def build_drift(
    lab: Lab,
    site: Site,
    guest: GuestRecord,
    vm: ObservedVm | None,
    *,
    template_gib: float | None = None,
    answer: str = "",
) -> tuple[Difference, ...]:
    """Compare a guest with the VM that bears its instance UUID.

    A lab whose lease has ended is expected to be off and disconnected. A guest that is not
    standing yet differs in nothing.

    Args:
        lab: whose guest it is.
        site: where it stands.
        guest: as recorded.
        vm: as vCenter shows it, whatever its mark says; None when no VM is seen.
        template_gib: the size of its VM template's disks, when that is known.
        answer: what vCenter says about the instance UUID when no VM with a mark bears it.
    """
    if vm is None:
        missing = guest.state is GuestState.STANDING
        observed = (
            f"stands, but has no mark: {build_plain_line(answer)}"
            if answer
            else "missing in vCenter"
        )
        return (Difference("VM", guest.vm_name, observed),) if missing else ()
    if guest.state is GuestState.GONE:
        return (Difference("VM", "gone", "stands in vCenter"),)
    if guest.state is not GuestState.STANDING:
        return ()
    spec = next(one for one in lab.blueprint.guests if one.slot == guest.identity.slot)
    rows = (
        *_compare_place(site, guest, vm),
        *_compare_hardware(spec, vm),
        *_compare_power(lab, vm),
        *_compare_nics(site, spec, guest, vm),
        *_compare_connected(lab, vm),
        *_compare_disks(guest, vm, template_gib),
    )
    return tuple(
        Difference(what, recorded, build_plain_line(observed))
        for what, recorded, observed in rows
        if recorded != observed
    )


Row = tuple[str, str, str]


def _compare_place(site: Site, guest: GuestRecord, vm: ObservedVm) -> Iterator[Row]:
    yield "mark", "ours", _describe_mark(guest, vm)
    yield "name", guest.vm_name, vm.name
    yield "connection", Connection.CONNECTED, vm.connection
    folder = site.placement.folder
    yield "folder", folder, vm.folder or folder


def _describe_mark(guest: GuestRecord, vm: ObservedVm) -> str:
    if vm.ownership is Ownership.OURS and vm.identity != guest.identity:
        return "another guest's"
    return vm.ownership


def _compare_hardware(spec: GuestSpec, vm: ObservedVm) -> Iterator[Row]:
    yield "CPUs", str(spec.cpus), str(vm.cpus)
    yield "memory", f"{spec.memory_mib} MiB", f"{vm.memory_mib} MiB"
    yield "snapshots", "none", ", ".join(vm.snapshots) or "none"


def _compare_power(lab: Lab, vm: ObservedVm) -> Iterator[Row]:
    yield "power", POWER.get(lab.state, vm.power_state), vm.power_state


def _compare_nics(site: Site, spec: GuestSpec, guest: GuestRecord, vm: ObservedVm) -> Iterator[Row]:
    recorded = sorted(site.networks[name].rpartition("/")[2] for name in spec.networks)
    observed = sorted(nic.network for nic in vm.nics)
    yield "NICs", str(len(recorded)), str(len(observed))
    named = [network for network in observed if not network.startswith(SWITCH_KEY)]
    lacking = Counter(recorded) - Counter(named)
    if Counter(named) - Counter(recorded) or lacking.total() > len(observed) - len(named):
        yield "networks", ", ".join(recorded), ", ".join(observed) or "none"
    macs = [nic.mac for nic in vm.nics]
    if guest.mac and guest.mac not in macs:
        yield "MAC", guest.mac, ", ".join(macs) or "none"


def _compare_connected(lab: Lab, vm: ObservedVm) -> Iterator[Row]:
    """Of a guest that should be on but is off, only its power is told."""
    expected = lab.state is LabState.READY
    if lab.state is LabState.EXPIRED or (expected and vm.power_state is PowerState.ON):
        for nic in vm.nics:
            yield f"NIC {nic.mac}", _say_connected(expected), _say_connected(nic.connected)


def _say_connected(connected: bool) -> str:  # noqa: FBT001 - a word for each of the two
    return "connected" if connected else "disconnected"


def _compare_disks(guest: GuestRecord, vm: ObservedVm, template_gib: float | None) -> Iterator[Row]:
    born = {_get_root(path): path for path in guest.birth_disks}
    if not born:
        return
    own = {_get_root(disk.path): disk for disk in vm.disks if _get_root(disk.path) in born}
    for disk in vm.disks:
        if _get_root(disk.path) not in born:
            yield "disk", "none", disk.path
    for root, path in born.items():
        if root not in own:
            yield "disk", path, "missing"
    capacity_gib = sum(disk.capacity_mib for disk in own.values()) / MIB_PER_GIB
    if template_gib is not None and capacity_gib > template_gib:
        yield "disk size", f"{template_gib:g} GiB", f"{capacity_gib:g} GiB"


def _get_root(path: str) -> str:
    return SNAPSHOT_DISK.sub("", path)
