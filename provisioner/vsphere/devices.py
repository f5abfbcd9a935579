"""A VM's disks and NICs: whose files the disks are, and which address belongs to which NIC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from typing import Any

from pyVmomi import vim

from provisioner.model.observed import ObservedNic, ObservedVm

DEVICES_PATH = "config.hardware.device"
Chains = tuple[tuple[str, ...], ...]
"""The files of each disk, from the newest child down to the root."""


def list_devices(values: Mapping[str, Any], kind: Any) -> list[Any]:
    """Return a hardware's devices of a kind, by device key."""
    devices = (item for item in values.get(DEVICES_PATH, ()) if isinstance(item, kind))
    return sorted(devices, key=lambda item: int(item.key))


def list_disks(values: Mapping[str, Any]) -> list[Any]:
    """Return a hardware's virtual disks, by device key."""
    return list_devices(values, vim.vm.device.VirtualDisk)


def list_nics(values: Mapping[str, Any]) -> list[Any]:
    """Return a hardware's NICs, by device key."""
    return list_devices(values, vim.vm.device.VirtualEthernetCard)


def list_files(disk: Any) -> tuple[str, ...]:
    """Return the files of a virtual disk, from the newest child down to the root."""
    files, backing = [], disk.backing
    while backing is not None:
        files.append(str(getattr(backing, "fileName", None) or "a disk without a file"))
        backing = getattr(backing, "parent", None)
    return tuple(files)


def get_folder(file: str) -> str:
    """Return the `[datastore] folder` of a file."""
    return file.rpartition("/")[0]


def list_foreign_disks(chains: Chains, birth_disks: Iterable[str]) -> tuple[str, ...]:
    """Return the disks that a VM was not born with.

    A disk is the VM's own when its chain of files reaches a birth disk and everything above that,
    as snapshots make it, lies in the same folder.
    """
    born = frozenset(birth_disks)
    return tuple(dict.fromkeys(chain[0] for chain in chains if not _is_born(chain, born)))


def _is_born(chain: tuple[str, ...], born: frozenset[str]) -> bool:
    at = next((place for place, file in enumerate(chain) if file in born), None)
    if at is None:
        return False
    folder = get_folder(chain[at])
    return all(get_folder(file) == folder for file in chain[:at])


def list_own_disks(chains: Chains, folder: str) -> tuple[str, ...]:
    """List a linked clone's lowest own files: in its own folder, right above the template's."""
    own = {
        file
        for chain in chains
        for file, below in pairwise(chain)
        if get_folder(file) == folder != get_folder(below)
    }
    return tuple(sorted(own))


def name_network(backing: Any) -> str:
    """Name a NIC's portgroup: by its name, or by its key on a distributed switch."""
    port = getattr(backing, "port", None)
    return str(port.portgroupKey if port else getattr(backing, "deviceName", "") or "")


def is_linked(nic: Any, *, running: bool, connected: bool) -> bool:
    """Tell whether a NIC is as `connected` says: now, at the next power on, and for its guest."""
    link = nic.connectable
    wanted = (link.startConnected, link.allowGuestControl) if link is not None else (None, None)
    return wanted == (connected, connected) and (not running or link.connected == connected)


def sort_nics(vm: ObservedVm, networks: Iterable[str]) -> ObservedVm:
    """Put a VM's NICs in the order of these networks; vCenter numbers new NICs as it likes."""
    rest, sorted_nics = list(vm.nics), list[ObservedNic]()
    for network in networks:
        found = next((nic for nic in rest if nic.network == network), None)
        if found is not None:
            rest.remove(found)
            sorted_nics.append(found)
    return replace(vm, nics=(*sorted_nics, *rest))


def choose_address(nics: Iterable[Any], mac: str) -> str | None:
    """Choose the address of the NIC with that MAC: IPv4 first, never link-local or loopback."""
    addresses = [
        address
        for nic in nics
        if (nic.macAddress or "").lower() == mac.lower()
        for text in nic.ipAddress or ()
        if (address := _read_address(str(text)))
    ]
    usable = [one for one in addresses if not (one.is_link_local or one.is_loopback)]
    return str(min(usable, key=lambda one: one.version)) if usable else None


def _read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read what a guest says is its address; None when it is none."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None
