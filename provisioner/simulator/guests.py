"""The port behind which the guests of simulated VMs run.

The SOAP side decides what a VM is; a ``GuestRuntime`` makes it a running machine. Calls may be
slow: they run in the thread of a vSphere task and never under the simulator's lock. Two calls for
one VM never overlap; calls for different VMs do.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class GuestError(Exception):
    """A guest could not do what was asked; the text ends in the vSphere task's fault."""


@dataclass(frozen=True, slots=True)
class NicHardware:
    """One virtual NIC of a VM as its guest shall see it."""

    mac: str
    portgroup: str
    connected: bool = True


@dataclass(frozen=True, slots=True)
class GuestHardware:
    """What a guest is powered on with. ``disk`` is a disk id of the runtime."""

    vm_id: str
    name: str
    instance_uuid: str
    bios_uuid: str
    cpus: int
    memory_mib: int
    disk: str
    nics: tuple[NicHardware, ...] = ()
    guestinfo: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuestNic:
    """One NIC as the guest reports it; ``mac`` is None for an unreadable one.

    ``addresses`` carry their prefix length (``10.0.0.5/24``).
    """

    mac: str | None
    name: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestState:
    """What a guest reports about itself. ``powered_on=False``: it stopped by itself."""

    powered_on: bool
    tools_running: bool
    hostname: str | None = None
    nics: tuple[GuestNic, ...] = ()


class ToolsCallbacks(Protocol):
    """What the tools stand-in of one guest calls, from any thread, at any time."""

    def info_get(self, key: str) -> str | None:
        """Return a guestinfo value, None when it is not set."""

    def info_set(self, key: str, value: str) -> None:
        """Set a guestinfo value; it appears in the VM's config.extraConfig."""

    def guest_state(self, state: GuestState) -> None:
        """Report a heartbeat or a change."""


class GuestRuntime(Protocol):
    """Runs guests. Every method raises GuestError when it cannot do what it promises."""

    def ensure_template(self, name: str) -> str:
        """Return the disk id of a VM template's base disk, built when missing."""

    def clone_disk(self, source_disk: str, vm_id: str) -> str:
        """Return a disk for ``vm_id`` that shares the layers of the source.

        The source is the disk of a template, of a guest (running or not) or of a snapshot.
        """

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        """Start the guest. Hardware that changed since the last time takes effect."""

    def set_links(self, vm: GuestHardware) -> None:
        """Connect the running guest's NICs that are connected now, and no others."""

    def power_off(self, vm_id: str) -> None:
        """Pull the plug; the disk stays."""

    def shutdown(self, vm_id: str) -> None:
        """Ask the guest to stop, return when it has."""

    def suspend(self, vm_id: str) -> None:
        """Freeze a running guest."""

    def resume(self, vm_id: str) -> None:
        """Thaw a suspended guest."""

    def snapshot(self, vm_id: str, snapshot_id: str) -> str:
        """Return the disk id of a snapshot, Docker data included; the guest may run or not."""

    def revert(self, vm_id: str, disk: str) -> None:
        """Bring the guest's disk back to a snapshot's; it is powered off afterwards."""

    def remove_snapshot(self, disk: str) -> None:
        """Forget a snapshot's disk."""

    def destroy(self, vm_id: str) -> None:
        """Remove the guest and everything nobody else needs; idempotent."""

    def ensure_network(self, portgroup: str, *, uplink: bool) -> None:
        """Make a portgroup usable; without an uplink its guests reach nothing outside."""

    def close(self) -> None:
        """Remove everything this runtime made."""


class NullGuests:
    """Guests without machines: after a moment each says that its tools run, with an address.

    Addresses come from 198.18.0.0/15, the range for benchmarks, one for each MAC, for good.
    ``on_boot`` returns the guestinfo that a guest publishes before that, given what it boots with.
    """

    def __init__(
        self,
        boot_s: float = 0.1,
        on_boot: Callable[[GuestHardware], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self._boot_s, self._on_boot = boot_s, on_boot
        self._lock = threading.Lock()
        self._numbers = itertools.count(2)
        self._addresses: dict[str, str] = {}
        self._booting: dict[str, threading.Timer] = {}
        self._hardware: dict[str, GuestHardware] = {}
        self.disks: set[str] = set()
        self.running: dict[str, ToolsCallbacks] = {}
        """The tools of every guest that is powered on, by vm_id."""

    def _address(self, mac: str) -> str:
        with self._lock:
            number = next(self._numbers)
            return self._addresses.setdefault(mac, f"198.18.{number >> 8}.{number & 255}/15")

    def _need(self, disk: str) -> None:
        if disk not in self.disks:
            raise GuestError(f"there is no disk {disk}")

    def ensure_template(self, name: str) -> str:
        """Return a disk that exists only by name."""
        self.disks.add(f"template:{name}")
        return f"template:{name}"

    def clone_disk(self, source_disk: str, vm_id: str) -> str:
        """Return a disk that exists only by name, when its source does."""
        self._need(source_disk)
        self.disks.add(vm_id)
        return vm_id

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        """Let the guest report itself in a moment."""
        self._need(vm.disk)

        def boot() -> None:
            for key, value in self._on_boot(vm).items():
                tools.info_set(key, value)
            tools.guest_state(self._state_of(self._hardware[vm.vm_id]))

        timer = threading.Timer(self._boot_s, boot)
        timer.daemon = True
        self.running[vm.vm_id], self._booting[vm.vm_id] = tools, timer
        self._hardware[vm.vm_id] = vm
        timer.start()

    def _state_of(self, vm: GuestHardware) -> GuestState:
        """Return what a guest reports, with the bridge of its Docker."""
        nics = [GuestNic("02:42:ac:11:00:01", "docker0", ("172.17.0.1/16",))]
        for nic in (one for one in vm.nics if one.connected):
            nics.append(GuestNic(nic.mac, f"eth{len(nics) - 1}", (self._address(nic.mac),)))
        return GuestState(powered_on=True, tools_running=True, hostname=vm.name, nics=tuple(nics))

    def set_links(self, vm: GuestHardware) -> None:
        """Report the NICs that are connected now."""
        self._hardware[vm.vm_id] = vm
        self.running[vm.vm_id].guest_state(self._state_of(vm))

    def power_off(self, vm_id: str) -> None:
        """Stop reporting."""
        self.running.pop(vm_id, None)
        if timer := self._booting.pop(vm_id, None):
            timer.cancel()

    shutdown = power_off

    def suspend(self, vm_id: str) -> None:
        """Nothing runs that could be frozen."""

    resume = suspend

    def revert(self, vm_id: str, disk: str) -> None:
        """Check the disk and stop reporting."""
        self._need(disk)
        self.power_off(vm_id)

    def snapshot(self, vm_id: str, snapshot_id: str) -> str:
        """Return a disk that exists only by name, when the guest's does."""
        return self.clone_disk(vm_id, snapshot_id)

    def remove_snapshot(self, disk: str) -> None:
        """Forget the disk."""
        self._need(disk)
        self.disks.discard(disk)

    def destroy(self, vm_id: str) -> None:
        """Forget the guest."""
        self.power_off(vm_id)
        self.disks.discard(vm_id)

    def ensure_network(self, portgroup: str, *, uplink: bool) -> None:
        """There is no network to make."""

    def close(self) -> None:
        """Stop everything."""
        for vm_id in list(self.running):
            self.power_off(vm_id)
        self.disks.clear()
