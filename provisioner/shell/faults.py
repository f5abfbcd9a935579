"""What paramiko and sockets raise, in labctl's words: one table."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from paramiko import ssh_exception as ssh
from paramiko.hostkeys import InvalidHostKey
from paramiko.pkey import UnknownKeyType

from provisioner.errors import GuestUnreachableError, HostKeyError, LabctlError, ShellError
from provisioner.rules.plain_text import build_plain_text

_DETAIL_CHARS = 200


@dataclass(frozen=True)
class Fault:
    """How one exception class is told: `{detail}` is the exception's own text, made plain."""

    kind: type[LabctlError]
    what: str
    hint: str


_WAIT = "see that the guest is powered on and that port 22 is open from here, then try again"
_KEY = "see that the account exists there and that labctl's key is in its authorized_keys"
_PEER = "look at sshd's settings on the guest: journalctl -u ssh"
_SWAPPED = "find out why before you trust it: another machine may answer at this address"

_DOWN = Fault(GuestUnreachableError, "cannot be reached ({detail})", _WAIT)
_SILENT = Fault(GuestUnreachableError, "does not answer in time", _WAIT)
_BROKEN = Fault(GuestUnreachableError, "ended the connection ({detail})", _WAIT)
_REFUSED = Fault(ShellError, "refuses the login ({detail})", _KEY)
_ODD = Fault(ShellError, "speaks SSH in a way labctl cannot follow ({detail})", _PEER)

FAULTS: dict[type[Exception], Fault] = {
    # a subclass comes through its own row, else through its nearest ancestor's
    ssh.BadHostKeyException: Fault(HostKeyError, "answers with another host key", _SWAPPED),
    ssh.AuthenticationException: _REFUSED,
    ssh.BadAuthenticationType: _REFUSED,
    ssh.PartialAuthentication: Fault(
        ShellError, "wants more than a key to log in ({detail})", "allow publickey alone there"
    ),
    ssh.UnableToAuthenticate: _REFUSED,
    ssh.PasswordRequiredException: Fault(
        ShellError, "has a key with a passphrase on our side", "use a key without a passphrase"
    ),
    ssh.ChannelException: Fault(
        GuestUnreachableError,
        "refuses a channel ({detail})",
        "see MaxSessions and AllowTcpForwarding there",
    ),
    ssh.IncompatiblePeer: _ODD,
    ssh.MessageOrderError: _ODD,
    ssh.NoValidConnectionsError: _DOWN,
    ssh.ProxyCommandFailure: _DOWN,
    ssh.CouldNotCanonicalize: _DOWN,
    ssh.ConfigParseError: _ODD,
    ssh.SSHException: _BROKEN,
    InvalidHostKey: Fault(
        HostKeyError, "has a line in its known_hosts file that is no plain key", "mend that file"
    ),
    UnknownKeyType: Fault(ShellError, "has a key of an unknown type", "use ed25519, ecdsa or rsa"),
    EOFError: Fault(GuestUnreachableError, "ended the connection", _WAIT),
    TimeoutError: _SILENT,
    ConnectionError: _BROKEN,
    ConnectionRefusedError: _DOWN,
    socket.gaierror: Fault(
        GuestUnreachableError, "has a name that does not resolve ({detail})", "look at DNS"
    ),
    OSError: _DOWN,
    # paramiko hands on whatever its thread met while it parsed what the peer sent
    Exception: _ODD,
}


def translate(error: Exception, who: str) -> LabctlError:
    """Return labctl's error for `error`, met while speaking to `who`."""
    fault = next(FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS)
    detail = build_plain_text(_describe(error)).strip().replace("\n", " ")[:_DETAIL_CHARS]
    return fault.kind(f"{who} {fault.what.format(detail=detail)}", hint=fault.hint)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
