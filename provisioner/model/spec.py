"""What IT writes: blueprints, sites and the team's stack. Born in files, validated by pydantic."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

# Lengths: login + short + slot + two hyphens stay within the 63 characters of a host name.
Login = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,22}[a-z0-9]$")]
Short = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{0,11}$")]
Slot = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
RoleName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
# `%` and `\` would need escapes that clients disagree about; `{{` would reach Jinja.
InventoryPath = Annotated[str, StringConstraints(pattern=r"^(/[^/%\\{}\x00-\x1f]{1,80})+$")]
HostName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")
]
UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,127}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s{}'\"\\@]+$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}$")]
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f{}]+$", max_length=200)]
Address = IPv4Address | IPv6Address


class Spec(BaseModel):
    """Base of everything IT writes: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LeasePolicy(Spec):
    """How long a lab may live, in days."""

    default_days: int = Field(ge=1, le=365)
    max_days: int = Field(ge=1, le=365)
    grace_days: int = Field(ge=0, le=30)

    @model_validator(mode="after")
    def _default_within_max(self) -> Self:
        if self.default_days > self.max_days:
            msg = f"default_days {self.default_days} is more than max_days {self.max_days}"
            raise ValueError(msg)
        return self


class GuestSpec(Spec):
    """One machine of a blueprint."""

    slot: Slot
    vm_template: Name
    cpus: int = Field(ge=1, le=64)
    memory_mib: int = Field(ge=512, le=1_048_576, multiple_of=4)
    networks: tuple[Name, ...] = Field(min_length=1, max_length=10)
    roles: tuple[RoleName, ...] = Field(min_length=1)


class Blueprint(Spec):
    """A lab as IT offers it (`labs/<name>/lab.yml`)."""

    blueprint: Name
    title: OneLine
    short: Short
    lease: LeasePolicy
    guests: tuple[GuestSpec, ...] = Field(min_length=1, max_length=20)

    @field_validator("guests")
    @classmethod
    def _slots_differ(cls, guests: tuple[GuestSpec, ...]) -> tuple[GuestSpec, ...]:
        slots = [guest.slot for guest in guests]
        if twice := sorted({slot for slot in slots if slots.count(slot) > 1}):
            msg = f"slot {', '.join(twice)} is used more than once; each guest needs its own"
            raise ValueError(msg)
        return guests


class Stack(Spec):
    """The team's stack (`labs/stack.yml`): versions and settings, by Ansible role."""

    stack: OneLine
    version: OneLine
    roles: dict[RoleName, dict[str, Any]]


class CheckKind(StrEnum):
    """A check only reads; a trial does the hire's work in a scratch place and cleans up."""

    CHECK = "check"
    TRIAL = "trial"


class RunAs(StrEnum):
    """Whose login a check uses: labctl's own with root rights, or one with the hire's rights."""

    ADMIN = "admin"
    HIRE = "hire"


class CheckSpec(Spec):
    """One proof on a running guest, as written in checks.yml beside its Ansible role.

    `script` is a file's name beside checks.yml.
    """

    name: Name
    title: OneLine
    kind: CheckKind
    run_as: RunAs
    script: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*\.(sh|py)$")]
    interpreter: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9/_.-]+$")] | None = None
    timeout_s: int = Field(ge=1, le=900)
    remedy: OneLine


class Check(CheckSpec):
    """A check ready to run: with the role it belongs to, and its script's text."""

    role: RoleName = ""
    body: str = ""


class VCenter(Spec):
    """Where vCenter is, who we are there and how its certificate is checked.

    Exactly one of `ca_file` and `thumbprint_sha256` decides about the certificate; without both
    the machine's own CA store does. Without a password source labctl asks at the terminal.
    """

    host: HostName
    port: int = Field(default=443, ge=1, le=65535)
    username: UserName
    password_file: Path | None = None
    password_credential: Name | None = None
    password_command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    ca_file: Path | None = None
    thumbprint_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        sources = (self.password_file, self.password_credential, self.password_command)
        if sum(source is not None for source in sources) > 1:
            msg = "give one of password_file, password_credential, password_command"
            raise ValueError(msg)
        if self.ca_file and self.thumbprint_sha256:
            msg = "give ca_file or thumbprint_sha256, not both"
            raise ValueError(msg)
        return self


class VmTemplate(Spec):
    """A powered-off VM with a snapshot, the source of linked clones."""

    path: InventoryPath
    snapshot: OneLine


class Placement(Spec):
    """Where the guests of this site go, as inventory paths."""

    datacenter: InventoryPath
    folder: InventoryPath
    resource_pool: InventoryPath
    datastores: tuple[OneLine, ...] = Field(min_length=1)
    reserve_gib: int = Field(default=10, ge=0)


class Proxy(Spec):
    """HTTP proxies that guests of this site must use."""

    http: Url | None = None
    https: Url | None = None
    no_proxy: tuple[OneLine, ...] = ()


class AptMirror(Spec):
    """Where guests fetch Debian packages."""

    debian: Url
    security: Url | None = None


class GuestSettings(Spec):
    """What guests of this site need before anything can be installed on them."""

    ca_certificates: tuple[Path, ...] = ()
    dns: tuple[Address, ...] = ()
    dns_search: tuple[HostName, ...] = ()
    ntp: tuple[HostName, ...] = ()
    proxy: Proxy = Proxy()
    apt: AptMirror | None = None
    pip_index_url: Url | None = None
    docker_registry_mirrors: tuple[Url, ...] = ()
    ssh_from: tuple[IPv4Network | IPv6Network, ...] = ()


class JumpHost(Spec):
    """The machine through which hires reach their guests."""

    host: HostName
    port: int = Field(default=22, ge=1, le=65535)
    user: UserName


class Site(Spec):
    """One on-prem place (`inventory/sites/<site>.yml`)."""

    site: Name
    title: OneLine = "a vSphere site"
    vcenter: VCenter
    placement: Placement
    networks: dict[Name, InventoryPath] = Field(min_length=1)
    vm_templates: dict[Name, VmTemplate] = Field(min_length=1)
    guests: GuestSettings = GuestSettings()
    jump_host: JumpHost | None = None
