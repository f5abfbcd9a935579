"""One SSH connection: the host key is compared before anything of ours is sent."""

from __future__ import annotations

import base64
import binascii
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from paramiko import Channel, HostKeys, PKey, Transport
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import (
    BadHostKeyException,
    PartialAuthentication,
    PasswordRequiredException,
    SSHException,
)

from provisioner.errors import GuestUnreachableError, HostKeyError, LabctlError, ShellError
from provisioner.ports import ShellTarget
from provisioner.shell.deadline import Deadline
from provisioner.shell.faults import translate

CONNECT_S = 10.0
HANDSHAKE_S = 20.0
KEEPALIVE_S = 15
_SSH_PORT = 22
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


@dataclass(frozen=True)
class Peer:
    """A machine to log in to, `who` in messages; one of `host_keys` is the right one."""

    who: str
    host: str
    port: int
    user: str
    host_keys: tuple[PKey, ...]


@dataclass(frozen=True)
class Connection:
    """An open connection; `jump` carries it where the guest is behind a jump host."""

    transport: Transport
    jump: Transport | None

    def close(self) -> None:
        """End it. Never raises."""
        close_quietly(self.transport)
        if self.jump is not None:
            close_quietly(self.jump)


def close_quietly(what: Transport | Channel) -> None:
    """Close it. A close sends a message, which fails where the connection has broken already."""
    with suppress(EOFError, OSError, SSHException):
        what.close()


def connect(
    target: ShellTarget, key: PKey, jump: Peer | None, jump_key: PKey, deadline: Deadline
) -> Connection:
    """Log in to a guest, through its jump host where there is one.

    Raises HostKeyError before any authentication when a host key is not the pinned one,
    GuestUnreachableError when nothing answers in time, ShellError when the login is refused.
    """
    host_key = _read_pinned_key(target)
    guest = Peer(
        who=f"guest {target.alias} at {target.address}",
        host=target.address,
        port=target.port,
        user=target.user,
        host_keys=(host_key,),
    )
    if jump is None:
        with translating(guest.who):
            sock = socket.create_connection((guest.host, guest.port), deadline.left_s(CONNECT_S))
        return Connection(_log_in(sock, guest, key, deadline), None)
    with translating(jump.who):
        sock = socket.create_connection((jump.host, jump.port), deadline.left_s(CONNECT_S))
    through = _log_in(sock, jump, jump_key, deadline)
    try:
        with translating(f"{guest.who} (asked by {jump.who})"):
            channel = through.open_channel(
                "direct-tcpip",
                (guest.host, guest.port),
                ("127.0.0.1", 0),
                timeout=deadline.left_s(CONNECT_S),
            )
        return Connection(_log_in(_Quiet(channel), guest, key, deadline), through)
    except BaseException:
        close_quietly(through)
        raise


@contextmanager
def translating(who: str) -> Iterator[None]:
    """Turn what paramiko and sockets raise into labctl's errors."""
    try:
        yield
    except LabctlError:
        raise
    except Exception as error:  # the edge: paramiko hands on anything its own thread met
        raise translate(error, who) from error


class _Quiet:
    """A channel beneath another connection: paramiko closes it in a thread where nobody catches."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        close_quietly(self._channel)


def _log_in(sock: Any, peer: Peer, key: PKey, deadline: Deadline) -> Transport:
    with translating(peer.who):
        try:
            transport = Transport(sock)
        except BaseException:
            sock.close()
            raise
        transport.daemon = True
        try:
            with deadline.watching(partial(close_quietly, transport)):
                _shake_hands(transport, peer, deadline)
                _authenticate(transport, peer, key, deadline)
        except BaseException:
            close_quietly(transport)
            raise
        transport.set_keepalive(KEEPALIVE_S)
    return transport


def _shake_hands(transport: Transport, peer: Peer, deadline: Deadline) -> None:
    """Negotiate, and compare the host key."""
    left_s = deadline.left_s(HANDSHAKE_S)
    transport.banner_timeout = transport.handshake_timeout = left_s
    options = transport.get_security_options()
    known = {key.get_name() for key in peer.host_keys}
    first = {*known, *(_RSA_SIGNATURES if "ssh-rsa" in known else ())}
    # Pinned types first: a machine with several keys shows the one we can compare.
    options.key_types = tuple(sorted(options.key_types, key=lambda name: name not in first))
    transport.start_client(timeout=left_s)
    try:
        shown = transport.get_remote_server_key()
    except SSHException as error:  # start_client returns without a word when its time runs out
        raise TimeoutError from error
    if shown not in peer.host_keys:
        raise BadHostKeyException(peer.host, shown, peer.host_keys[0])


def _authenticate(transport: Transport, peer: Peer, key: PKey, deadline: Deadline) -> None:
    transport.auth_timeout = deadline.left_s(HANDSHAKE_S)
    if further := transport.auth_publickey(peer.user, key):
        raise PartialAuthentication(further)


def _read_pinned_key(target: ShellTarget) -> PKey:
    try:
        key_type, encoded = target.host_key.split()[:2]
        return PKey.from_type_string(key_type, base64.b64decode(encoded, validate=True))
    except (ValueError, binascii.Error, SSHException, UnknownKeyType) as error:
        raise HostKeyError(
            f"no usable host key is pinned for guest {target.alias}",
            hint="provision the lab to its end: the key is learned through vCenter",
        ) from error


def read_private_key(path: str) -> PKey:
    """Read a private key file. Raises ShellError when it cannot be used."""
    hint = "labctl makes its keys itself: provision the lab again, or restore the state folder"
    try:
        return PKey.from_path(path)
    except OSError as error:
        raise ShellError(f"cannot read the key {path}: {error.strerror}", hint=hint) from error
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        SSHException,
        PasswordRequiredException,
        UnknownKeyType,
    ) as error:
        # Not the library's text: it could repeat a part of the file.
        raise ShellError(
            f"the key {path} cannot be used: damaged, or with a passphrase", hint=hint
        ) from error


def read_jump(jump: str, known_hosts: Path) -> Peer:
    """Build the jump host's Peer from `user@host:port` and a known_hosts file.

    Raises HostKeyError when its host key is not in that file.
    """
    user, _, place = jump.rpartition("@")
    host, _, port = place.rpartition(":")
    host = host.strip("[]")  # as IPv6 addresses are written before a port
    name = host if int(port) == _SSH_PORT else f"[{host}]:{port}"
    who = f"jump host {host}"
    hint = (
        f"ssh-keyscan -p {port} {host} shows it: compare its fingerprint with the jump host's "
        f"own, then append the line to {known_hosts}"
    )
    try:
        with translating(f"{who} ({known_hosts})"):
            found = HostKeys(str(known_hosts)).lookup(name)
    except GuestUnreachableError:  # an OSError of the file, not of a connection
        found = None
    if not found:
        raise HostKeyError(f"the host key of {who} is not known", hint=hint)
    return Peer(
        who=who, host=host, port=int(port), user=user, host_keys=tuple(dict(found).values())
    )
