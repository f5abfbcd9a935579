"""Guests of the simulator as Debian 13 systemd containers.

They keep the host safe from accidents, not from a hostile root: SYS_ADMIN without a user namespace
is no security boundary.
"""

from provisioner.simulator.containers.runtime import ContainerGuests

__all__ = ["ContainerGuests"]
