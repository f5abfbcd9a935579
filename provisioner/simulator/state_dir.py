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
from typing import IO, TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisioner.simulator.world import now

if TYPE_CHECKING:
    from pathlib import Path

USERNAME = "administrator@vsphere.local"
EVENTS_PER_START = 100_000
VALID = timedelta(days=3650)
LOOPBACK = ("127.0.0.1", "::1")


class StateError(Exception):
    """The state folder cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class StateDir:
    """A locked state folder, and what a start needs of it.

    ``endpoint`` is there only while the simulator is ready; ``certificate`` is its own CA's.
    """

    path: Path
    certificate: Path
    key: Path
    password_file: Path
    endpoint: Path
    lock: IO[str]
    instance_uuid: str
    first_event_key: int
    password: str

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
        _write(self.endpoint, json.dumps(endpoint, indent=2))

    def close(self) -> None:
        """Remove the endpoint file and release the folder."""
        self.endpoint.unlink(missing_ok=True)
        self.lock.close()


def _write(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(f"{text}\n")
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
    names = ("certificate.pem", "key.pem", "password", "endpoint.json", "identity.json")
    certificate, key, password, endpoint, identity_file = (path / name for name in names)
    identity: dict[str, Any] = {"instance_uuid": str(uuid.uuid4()), "starts": -1}
    if identity_file.exists():
        identity = json.loads(identity_file.read_text())
    starts = identity["starts"] + 1
    _write(identity_file, json.dumps({**identity, "starts": starts}))
    if not password.exists():
        _write(password, secrets.token_urlsafe(24))
    if not certificate.exists():
        _make_certificate(certificate, key)
    endpoint.unlink(missing_ok=True)
    return StateDir(
        *(path, certificate, key, password, endpoint, lock),
        instance_uuid=identity["instance_uuid"],
        first_event_key=starts * EVENTS_PER_START + 1,
        password=password.read_text().strip(),
    )


def _make_certificate(certificate: Path, key_file: Path) -> None:
    """Make a self-signed certificate for the loopback names."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "labctl simulator")])
    addresses = [x509.IPAddress(ipaddress.ip_address(one)) for one in LOOPBACK]
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now() - timedelta(days=1)).not_valid_after(now() + VALID)
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    made = builder.add_extension(usage, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    _write(key_file, private.decode().strip())
    _write(certificate, made.public_bytes(pem).decode().strip())
