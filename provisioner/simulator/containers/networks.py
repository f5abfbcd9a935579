"""Portgroups as Docker networks: own subnets, fixed addresses, resolvers that a guest can reach."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from provisioner.simulator.guests import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

# Set aside for benchmarks between networks (RFC 2544): no office, VPN or Docker default uses it.
POOL = IPv4Network("198.18.0.0/15")
PREFIX_LENGTH = 22
# Beside resolv.conf itself: where systemd-resolved and NetworkManager keep the real upstreams.
RESOLVER_FILES = (
    Path("/etc/resolv.conf"),
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
)


class Networks:
    """The portgroups of one simulator and which VM has which address in each, for good."""

    def __init__(self, client: DockerClient, prefix: str, labels: dict[str, str]) -> None:
        self._client = client
        self._prefix = prefix
        self._labels = labels
        self._names: dict[str, str] = {}
        self._hosts: dict[str, Iterator[IPv4Address]] = {}
        self._addresses: dict[tuple[str, str], IPv4Address] = {}
        self._lock = threading.Lock()

    def ensure(self, portgroup: str, *, uplink: bool) -> None:
        """Create the portgroup's network when it has none; internal when it has no uplink."""
        with self._lock:
            if portgroup not in self._names:
                name, subnet = self._create(portgroup, uplink=uplink)
                self._names[portgroup] = name
                # The first address is the host's. Round and round: a freed one rests longest.
                self._hosts[portgroup] = itertools.cycle(tuple(subnet.hosts())[1:])

    def allocate(self, portgroup: str, vm_id: str) -> tuple[str, str]:
        """Return the network's name and the address that the VM keeps until it is released."""
        with self._lock:
            if portgroup not in self._names:
                raise GuestError(f"portgroup {portgroup!r} has no network")
            if (portgroup, vm_id) not in self._addresses:
                taken = {used for (group, _), used in self._addresses.items() if group == portgroup}
                tries = itertools.islice(self._hosts[portgroup], POOL.num_addresses)
                free = next((each for each in tries if each not in taken), None)
                if free is None:
                    raise GuestError(f"portgroup {portgroup!r} has no free address")
                self._addresses[portgroup, vm_id] = free
            return self._names[portgroup], str(self._addresses[portgroup, vm_id])

    def release(self, vm_id: str) -> None:
        """Free the addresses of a VM that is gone."""
        with self._lock:
            for key in [key for key in self._addresses if key[1] == vm_id]:
                del self._addresses[key]

    def _create(self, portgroup: str, *, uplink: bool) -> tuple[str, IPv4Network]:
        # Portgroup names may hold anything, Docker's may not: readable part and hash.
        digest = hashlib.sha256(portgroup.encode()).hexdigest()[:6]
        name = f"{self._prefix}-{re.sub(r'[^a-zA-Z0-9]+', '-', portgroup)[:20]}-{digest}"
        routes, mtu = read_routes(Path("/proc/net/route"))
        taken = (*routes, *map(IPv4Network, list_resolvers()))
        for subnet in POOL.subnets(new_prefix=PREFIX_LENGTH):
            if any(subnet.overlaps(each) for each in taken):
                continue
            pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
            try:
                self._client.networks.create(
                    name,
                    driver="bridge",
                    internal=not uplink,
                    ipam=IPAMConfig(pool_configs=[pool]),
                    options={"com.docker.network.driver.mtu": str(mtu)},
                    labels=self._labels,
                )
            except APIError as error:
                if "overlap" not in str(error).lower():  # else another simulator was faster
                    raise
            else:
                return name, subnet
        raise GuestError(f"every subnet of {POOL} is in use on this machine")


def read_routes(table: Path) -> tuple[tuple[IPv4Network, ...], int]:
    """Return the host's IPv4 destinations, and the MTU of its uplink: bridges must not exceed it.

    Args:
        table: in the format of ``/proc/net/route``, with its little-endian hexadecimal addresses.
    """
    routes, mtu = [], 1500
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask, *_ = line.split()
        address, netmask = (bytes.fromhex(each)[::-1] for each in (destination, mask))
        if any(netmask):
            routes.append(IPv4Network((address, str(IPv4Address(netmask)))))
        else:
            mtu = int(Path("/sys/class/net", interface, "mtu").read_text(encoding="ascii"))
    return tuple(routes), mtu


def list_resolvers(files: tuple[Path, ...] = RESOLVER_FILES) -> tuple[str, ...]:
    """List the host's IPv4 resolvers that a guest can use: none on loopback.

    Raises:
        GuestError: the host names only resolvers on its own loopback.
    """
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        named = re.findall(r"(?m)^\s*nameserver\s+(\d+\.\d+\.\d+\.\d+)\s*$", text)
        if found := tuple(each for each in named if not IPv4Address(each).is_loopback):
            return found
    raise GuestError(
        f"guests cannot use this machine's DNS: {', '.join(map(str, files))} name no IPv4 resolver "
        "outside loopback; add a 'nameserver' line with the network's own one to /etc/resolv.conf"
    )
