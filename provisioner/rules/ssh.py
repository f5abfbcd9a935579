"""What OpenSSH reads: known_hosts lines, paths in its options, jump hosts."""

from __future__ import annotations

from ipaddress import ip_address

from provisioner.errors import InputError, RefusedError
from provisioner.model.lab import GuestRecord
from provisioner.model.spec import JumpHost

ADMIN_USER = "labctl"


def build_known_hosts(guests: tuple[GuestRecord, ...]) -> str:
    """Build a known_hosts file: each guest by its VM's name (HostKeyAlias), never by address."""
    return "".join(f"{guest.vm_name} {guest.host_key}\n" for guest in guests if guest.host_key)


def get_address(guest: GuestRecord) -> str:
    """Return a guest's address.

    Raises RefusedError when the guest has no address or no pinned key yet, or when what it gave
    as its address is none: root on the guest may report any text.
    """
    who = f"guest {guest.identity.slot} of lab {guest.identity.lab_id}"
    if not (guest.address and guest.host_key):
        raise RefusedError(f"{who} was never reached", hint="provision the lab to its end first")
    try:
        return str(ip_address(guest.address))
    except ValueError as error:
        raise RefusedError(
            f"{who} reports {guest.address[:80]!r}, which is no IP address",
            hint="look at its network in vCenter",
        ) from error


def build_path_word(path: str) -> str:
    """Build a path as one word of an ssh option: `%` is doubled, blanks are quoted.

    Raises InputError for a path that ssh's configuration cannot express.
    """
    if '"' in path or "\\" in path or not path.isprintable():
        raise InputError(
            f"the path {path[:200]!r} cannot be written into ssh's configuration",
            hint="choose a folder without quotes, backslashes and control characters in its name",
        )
    word = path.replace("%", "%%")
    return f'"{word}"' if " " in word else word


def build_jump(jump_host: JumpHost) -> str:
    """Build the value of ssh's ProxyJump."""
    host = f"[{jump_host.host}]" if ":" in jump_host.host else jump_host.host
    return f"{jump_host.user}@{host}:{jump_host.port}"
