"""The state folder of one simulator: identity, password, certificate, and the endpoint file."""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import json
import os
import secrets
import ssl
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisioner.simulator.world import now

USERNAME = "administrator@vsphere.local"
EVENTS_PER_START = 100_000
CERTIFICATE_DAYS = 3650


class StateError(Exception):
    """The state folder cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class StateDir:
    """A locked state folder, with everything in it that a start needs."""

    path: Path
    lock: IO[str]
    instance_uuid: str
    first_event_key: int
    password: str

    @property
    def certificate(self) -> Path:
        """The server's certificate, which is also its CA's."""
        return self.path / "certificate.pem"

    @property
    def key(self) -> Path:
        """The certificate's private key."""
        return self.path / "key.pem"

    @property
    def password_file(self) -> Path:
        """Where the password is."""
        return self.path / "password"

    @property
    def endpoint_file(self) -> Path:
        """Where a client learns how to reach the simulator; there only while it is ready."""
        return self.path / "endpoint.json"

    def announce(self, host: str, port: int) -> None:
        """Write the endpoint file."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        endpoint = {
            "url": f"https://{host}:{port}/sdk",
            "host": host,
            "port": port,
            "pid": os.getpid(),
            "username": USERNAME,
            "password_file": str(self.password_file),
            "ca_file": str(self.certificate),
            "thumbprint_sha256": hashlib.sha256(der).hexdigest().upper(),
            "instance_uuid": self.instance_uuid,
        }
        _write(self.endpoint_file, json.dumps(endpoint, indent=2) + "\n")

    def close(self) -> None:
        """Remove the endpoint file and release the folder."""
        self.endpoint_file.unlink(missing_ok=True)
        self.lock.close()


def _write(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(path)


def open_state_dir(path: Path) -> StateDir:
    """Lock a state folder and fill in what is missing: it keeps its identity from start to start.

    Event keys of a start are all greater than those of the starts before, as in one vCenter.

    Raises:
        StateError: another simulator runs on it, or it is open to other users.
    """
    path = path.resolve()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        raise StateError(f"{path} is open to other users: chmod 700 {path}")
    lock = (path / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StateError(f"a simulator already runs on {path}: stop it first") from error
    identity = _next_identity(path / "identity.json")
    password_file = path / "password"
    if not password_file.exists():
        _write(password_file, secrets.token_urlsafe(24) + "\n")
    state = StateDir(
        path=path,
        lock=lock,
        instance_uuid=identity["instance_uuid"],
        first_event_key=identity["starts"] * EVENTS_PER_START + 1,
        password=password_file.read_text().strip(),
    )
    state.endpoint_file.unlink(missing_ok=True)
    if not state.certificate.exists():
        _make_certificate(state)
    return state


def _next_identity(path: Path) -> dict[str, Any]:
    if path.exists():
        identity: dict[str, Any] = json.loads(path.read_text())
    else:
        identity = {"instance_uuid": str(uuid.uuid4()), "starts": -1}
    identity["starts"] += 1
    _write(path, json.dumps(identity) + "\n")
    return identity


def _make_certificate(state: StateDir) -> None:
    """Make a self-signed certificate for the loopback names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "labctl simulator")])
    names = [
        x509.DNSName("localhost"),
        *(x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")),
    ]
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(state.key, private.decode())
    _write(state.certificate, certificate.public_bytes(serialization.Encoding.PEM).decode())
