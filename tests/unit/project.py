"""A small project on disk: labs, roles, a site and the files that it names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cases.harness import CASES

FILES = CASES / "files"
ROLES = ("hire_account", "linux_baseline")
ROLE = "linux_baseline"
NO_TEXT = b"\xff\xfe\x00"


def read_base(kind: str) -> str:
    return (FILES / f"{kind}.base.yml").read_text()


@dataclass(frozen=True)
class Project:
    """Paths of a valid project; a test spoils what it wants to see refused."""

    root: Path

    @property
    def labs(self) -> Path:
        return self.root / "labs"

    @property
    def playbooks(self) -> Path:
        return self.root / "playbooks"

    @property
    def sites(self) -> Path:
        return self.root / "inventory" / "sites"

    @property
    def checks(self) -> Path:
        return self.playbooks / "roles" / ROLE / "checks"

    def path_of(self, kind: str) -> Path:
        return {
            "blueprint": self.labs / "two-guests" / "lab.yml",
            "stack": self.labs / "stack.yml",
            "site": self.sites / "plant.yml",
            "checks": self.checks / "checks.yml",
        }[kind]


def make_project(root: Path) -> Project:
    project = Project(root)
    for role in ROLES:
        (project.playbooks / "roles" / role / "checks").mkdir(parents=True)
    for kind in ("blueprint", "stack", "site", "checks"):
        project.path_of(kind).parent.mkdir(parents=True, exist_ok=True)
        project.path_of(kind).write_text(read_base(kind))
    for name in ("login_works.sh", "run_is_logged.py"):
        (project.checks / name).write_text("exit 0\n")
    (project.checks / "empty.sh").write_text("\n")
    (project.checks / "binary.py").write_bytes(NO_TEXT)
    _make_site_files(project.sites)
    return project


def _make_site_files(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant root")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2036, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    contents = {
        "ca.pem": pem,
        "chain.pem": b"# two of them\n" + pem + pem,
        "ca.der": certificate.public_bytes(serialization.Encoding.DER),
        "key.pem": pem + private,
        "password": b"secret\n",
        "open-password": b"secret\n",
    }
    for file, content in contents.items():
        path = folder / file
        path.write_bytes(content)
        path.chmod(0o644 if file == "open-password" else 0o600)
