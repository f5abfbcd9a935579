"""What the world answered: vCenter, guests, Ansible, checks. Read, never wished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from provisioner.model.lab import GuestIdentity


class Ownership(StrEnum):
    """Whose VM it is, decided by its mark and its instance UUID, never by its name."""

    OURS = "ours"
    COPY = "copy"  # a genuine mark, but of another instance UUID: somebody cloned our VM
    OTHER_INSTALLATION = "other-installation"
    VOID = "void"  # a mark that this installation's key did not make
    UNMARKED = "unmarked"


class Connection(StrEnum):
    """Whether vCenter can work with a VM (`runtime.connectionState`)."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # its host is away
    ORPHANED = "orphaned"  # its host does not know it any more
    INACCESSIBLE = "inaccessible"  # its files cannot be read
    INVALID = "invalid"


class PowerState(StrEnum):
    """A VM's power state."""

    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"


@dataclass(frozen=True)
class ObservedDisk:
    """One virtual disk: datastore path like `[datastore1] vm/vm.vmdk`, and its size."""

    device_key: int
    path: str
    capacity_mib: int


@dataclass(frozen=True)
class ObservedNic:
    """One NIC of a VM as hardware."""

    device_key: int
    mac: str
    network: str
    connected: bool


@dataclass(frozen=True)
class ObservedVm:
    """One VM as vCenter showed it at one moment.

    `identity` is what its mark says, if it has one. `folder` is the path of the inventory folder
    that holds it, `created_at` is `config.createDate`; both unset when vCenter does not say.
    `own_disks` are the lowest of its disks' files that lie in its own folder, above a template's.
    `dossier` is empty unless its signature is this installation's and names this VM.
    """

    moref: str
    name: str
    instance_uuid: str
    ownership: Ownership
    identity: GuestIdentity | None
    power_state: PowerState
    cpus: int
    memory_mib: int
    disks: tuple[ObservedDisk, ...]
    nics: tuple[ObservedNic, ...]
    snapshots: tuple[str, ...] = ()
    folder: str = ""
    created_at: datetime | None = None
    connection: Connection = Connection.CONNECTED
    disabled_methods: tuple[str, ...] = ()
    dossier: str = ""
    own_disks: tuple[str, ...] = ()

    def find_birth_disks(self, disk_count: int) -> tuple[str, ...]:
        """Find the disks a linked clone was born with when nobody recorded them; none in doubt.

        Only when it has exactly as many own disks as a clone of its template is born with, each of
        them must be one.
        """
        return self.own_disks if len(self.own_disks) == disk_count else ()


@dataclass(frozen=True)
class ObservedDatastore:
    """A datastore's room, in GiB, and whether VMs can be placed there now."""

    name: str
    free_gib: float
    usable: bool


@dataclass(frozen=True)
class ObservedTemplate:
    """A VM template of the site: fit when it is off, unmarked and has its snapshot."""

    name: str
    path: str
    fit: bool
    disk_gib: float
    problem: str = ""


@dataclass(frozen=True)
class ObservedSite:
    """What a plan needs to know of a site, read without a write.

    `vm_names` are the names in the labs' folder. `problems` are site settings that vCenter does
    not confirm (a portgroup that does not exist, a folder of another type), in plain words.
    """

    vcenter_uuid: str
    vcenter_name: str
    datastores: tuple[ObservedDatastore, ...]
    templates: tuple[ObservedTemplate, ...]
    vm_names: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Sight:
    """What proves that we still see: without it an empty answer means nothing.

    `event_key` is the newest event's key; on one vCenter it never goes back.
    """

    vcenter_uuid: str
    event_key: int
    missing_privileges: tuple[str, ...]
    missing_objects: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """One question to vCenter about one object, and its answer.

    `gone` is None when the answer does not decide.
    """

    kind: str
    name: str
    moref: str
    uuid: str
    asked_at: datetime
    answer: str
    gone: bool | None


class DestroyResult(StrEnum):
    """What became of a VM that was to be destroyed."""

    DESTROYED = "destroyed"
    ALREADY_GONE = "already-gone"
    RESIDUE = "residue"


@dataclass(frozen=True)
class DestroyOutcome:
    """The result for one VM; `detail` says why, where residue stays."""

    result: DestroyResult
    detail: str = ""


@dataclass(frozen=True)
class PlayProgress:
    """One event of a converge: a play task started, or ended on a guest."""

    slot: str
    role: str
    play_task: str
    status: str  # started, ok, changed, skipped, failed, unreachable
    text: str = ""


@dataclass(frozen=True)
class PlayRecap:
    """Ansible's recap of one guest."""

    slot: str
    ok: int
    changed: int
    failed: int
    unreachable: int
    skipped: int


@dataclass(frozen=True)
class ShellResult:
    """What a script on a guest did. Output is capped and free of control characters."""

    exit_status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class CheckResult:
    """What one check saw on one guest."""

    slot: str
    role: str
    name: str
    title: str
    kind: str
    passed: bool
    saw: str
    remedy: str
    elapsed_s: float
