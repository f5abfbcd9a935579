"""Portgroups as Docker networks: own subnets, fixed addresses, resolvers that a guest can reach."""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
import logging
import re
import threading
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from provisioner.simulator.guests import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docker import DockerClient

_log = logging.getLogger(__name__)

# Set aside for benchmarks between networks (RFC 2544): no office, VPN or Docker default uses it.
POOL = IPv4Network("198.18.0.0/15")
PREFIX_LENGTH = 22
# Beside resolv.conf itself: where systemd-resolved and NetworkManager keep the real upstreams.
RESOLVER_FILES = (
    Path("/etc/resolv.conf"),
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
)
_HOST_ROUTES = Path("/proc/net/route")


@dataclass(slots=True)
class Portgroup:
    """One portgroup's network and which VM has which address in it, for good."""

    network: str
    subnet: IPv4Network
    addresses: dict[str, IPv4Address] = field(default_factory=dict)
    fresh: Iterator[IPv4Address] = field(init=False)

    def __post_init__(self) -> None:
        hosts = tuple(self.subnet.hosts())[1:]  # the first one is the host's
        self.fresh = itertools.cycle(hosts)

    def allocate(self, vm_id: str) -> IPv4Address:
        """Return the VM's address; a freed one is reused as late as possible."""
        if vm_id not in self.addresses:
            taken = set(self.addresses.values())
            if len(taken) >= self.subnet.num_addresses - 3:
                raise GuestError(f"no address is left in {self.subnet} of network {self.network}")
            self.addresses[vm_id] = next(each for each in self.fresh if each not in taken)
        return self.addresses[vm_id]


class Networks:
    """The portgroups of one simulator."""

    def __init__(self, client: DockerClient, prefix: str, labels: Mapping[str, str]) -> None:
        self._client = client
        self._prefix = prefix
        self._labels = dict(labels)
        self._portgroups: dict[str, Portgroup] = {}
        self._lock = threading.Lock()

    def ensure(self, portgroup: str, *, uplink: bool) -> None:
        """Create the portgroup's network when it has none; internal when it has no uplink."""
        with self._lock:
            if portgroup not in self._portgroups:
                self._portgroups[portgroup] = self._create(portgroup, uplink=uplink)

    def allocate(self, portgroup: str, vm_id: str) -> tuple[str, str]:
        """Return the network's name and the address that the VM keeps until it is released."""
        with self._lock:
            if portgroup not in self._portgroups:
                raise GuestError(f"portgroup {portgroup!r} has no network")
            found = self._portgroups[portgroup]
            return found.network, str(found.allocate(vm_id))

    def release(self, vm_id: str) -> None:
        """Free the addresses of a VM that is gone."""
        with self._lock:
            for portgroup in self._portgroups.values():
                portgroup.addresses.pop(vm_id, None)

    def _create(self, portgroup: str, *, uplink: bool) -> Portgroup:
        # Portgroup names may hold anything, Docker's may not: readable part and hash.
        digest = hashlib.sha256(portgroup.encode()).hexdigest()[:6]
        name = f"{self._prefix}-{re.sub(r'[^a-zA-Z0-9]+', '-', portgroup)[:20]}-{digest}"
        for subnet in self._iter_free_subnets():
            pool = IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
            try:
                self._client.networks.create(
                    name,
                    driver="bridge",
                    internal=not uplink,
                    ipam=IPAMConfig(pool_configs=[pool]),
                    options={"com.docker.network.driver.mtu": str(read_uplink_mtu())},
                    labels=self._labels,
                )
            except APIError as error:
                if "overlap" not in str(error).lower():
                    raise
                continue  # another simulator was faster
            return Portgroup(name, subnet)
        raise GuestError(f"every subnet of {POOL} is in use on this machine")

    def _iter_free_subnets(self) -> Iterator[IPv4Network]:
        taken = {*list_host_routes(), *(IPv4Network(r) for r in list_resolvers())}
        for network in self._client.networks.list():
            for config in (network.attrs["IPAM"] or {}).get("Config") or ():
                subnet = ipaddress.ip_network(config.get("Subnet", "0.0.0.0/32"), strict=False)
                taken |= {subnet} if isinstance(subnet, IPv4Network) else set()
        for subnet in POOL.subnets(new_prefix=PREFIX_LENGTH):
            if not any(subnet.overlaps(each) for each in taken):
                yield subnet


def list_host_routes(table: Path = _HOST_ROUTES) -> tuple[IPv4Network, ...]:
    """List the destinations of the host's IPv4 routes, without the default one."""
    routes = []
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        # The kernel prints addresses as little-endian hexadecimal numbers.
        destination, mask = (int(fields[i], 16).to_bytes(4, "little") for i in (1, 7))
        if any(mask):
            routes.append(IPv4Network((destination, str(IPv4Address(mask)))))
    return tuple(routes)


def read_uplink_mtu(table: Path = _HOST_ROUTES) -> int:
    """Return the MTU of the interface of the host's default route: bridges must not exceed it."""
    for line in table.read_text(encoding="ascii").splitlines()[1:]:
        interface, destination, *_ = line.split()
        if destination == "00000000":
            return int(Path("/sys/class/net", interface, "mtu").read_text(encoding="ascii"))
    return 1500


def list_resolvers(files: tuple[Path, ...] = RESOLVER_FILES) -> tuple[str, ...]:
    """List the host's IPv4 resolvers that a guest can use: none on loopback.

    Raises:
        GuestError: the host names only resolvers on its own loopback.
    """
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        found = tuple(
            each
            for each in re.findall(r"(?m)^\s*nameserver\s+([0-9.]+)\s*$", text)
            if not IPv4Address(each).is_loopback
        )
        if found:
            return found
    raise GuestError(
        "guests cannot use this machine's DNS: "
        f"{', '.join(map(str, files))} name no IPv4 resolver outside loopback; "
        "add a 'nameserver' line with the network's own resolver to /etc/resolv.conf"
    )
