"""A lab as labctl records it: who it is for, what it should be, how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from provisioner.model.spec import Blueprint


@dataclass(frozen=True)
class Hire:
    """The person a lab is for.

    `public_key` is one SSH public key line without its comment.
    """

    email: str
    login: str
    public_key: str


@dataclass(frozen=True)
class Lease:
    """Until when a lab lives, and how long after that it may still be rescued."""

    ends_at: datetime
    grace_for: timedelta


class Desired(StrEnum):
    """What IT wants of a lab."""

    PRESENT = "present"
    ABSENT = "absent"


class LabState(StrEnum):
    """How far a lab is."""

    PROVISIONING = "provisioning"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"  # its lease has ended: powered off and disconnected, not yet destroyed
    TEARING_DOWN = "tearing-down"
    RESIDUE = "residue"
    GONE = "gone"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Lab:
    """One provisioned blueprint for one hire: identity = lab id + generation.

    `vcenter_uuid` is `about.instanceUuid` of the vCenter it was made on, `event_key` the newest
    event there when the lab was recorded: a vCenter whose newest key is lower was rolled back.
    """

    lab_id: str
    generation: int
    site: str
    vcenter_uuid: str
    event_key: int
    blueprint: Blueprint
    hire: Hire
    lease: Lease
    desired: Desired
    state: LabState
    created_at: datetime
    ready_at: datetime | None = None
    closed_at: datetime | None = None
    note: str = ""


@dataclass(frozen=True)
class GuestIdentity:
    """Which guest this is: the fields that the mark in vCenter names."""

    lab_id: str
    generation: int
    slot: str
    instance_uuid: str


class GuestState(StrEnum):
    """How far a guest's VM is: the journal of its birth and its end."""

    PLANNED = "planned"  # chosen: UUID and name; nothing was sent to vCenter
    INTENDED = "intended"  # about to be cloned, from a pinned template: a call may be under way
    CLONING = "cloning"  # vCenter accepted the clone: its task is recorded
    STANDING = "standing"  # the VM was read back: moref, NIC and birth disks are recorded
    GONE = "gone"  # destroyed, or found to be gone


@dataclass(frozen=True)
class TemplatePin:
    """Exactly which VM template a guest is cloned from: it must be the same one when it is cloned.

    `change_version` is `config.changeVersion`, `snapshot` the moref of the snapshot that is the
    parent of the clone's disks, `disk_count` how many disks a clone is born with.
    """

    instance_uuid: str
    change_version: str
    snapshot: str
    disk_count: int


@dataclass(frozen=True)
class GuestRecord:
    """What the store knows of one guest.

    `moref`, `address` and `vim_task` are hints, read again before they are used. `nonce` is the
    word by which the guest's published host key is recognised. `pin` is the template of the clone
    call, recorded before it. `birth_disks` are the datastore paths of the disks that the VM was
    born with; empty until it was `standing`.
    """

    identity: GuestIdentity
    vm_name: str
    nonce: str
    state: GuestState = GuestState.PLANNED
    pin: TemplatePin | None = None
    vim_task: str = ""
    moref: str = ""
    mac: str = ""
    address: str = ""
    host_key: str = ""
    birth_disks: tuple[str, ...] = ()


class WorkStatus(StrEnum):
    """How a piece of work stands."""

    WAITING = "waiting"  # asked for; no worker has taken it yet
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


OPEN_WORK = frozenset({WorkStatus.WAITING, WorkStatus.RUNNING})


@dataclass(frozen=True)
class WorkItem:
    """One run of a workflow that was asked for, and how it ended.

    `run` counts the runs of this workflow for this generation, from 1; asking again for one that
    failed and can be continued keeps its number. `error` is what `errors.to_data` made of the
    error that it failed with. `serial` grows with every item of the store.
    """

    serial: int
    workflow: str
    lab_id: str
    generation: int
    run: int
    status: WorkStatus
    asked_at: datetime
    ended_at: datetime | None = None
    error: dict[str, str] | None = None


class StepStatus(StrEnum):
    """How a step of work stands."""

    STARTED = "started"
    NOTE = "note"
    WAITING = "waiting"  # vCenter does not answer: it is tried again
    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True)
class Progress:
    """One row of a lab's log.

    `serial` grows with every row of the store; 0 until stored. `elapsed_s` is set when a step ends.
    """

    lab_id: str
    generation: int
    at: datetime
    workflow: str
    step: str
    slot: str
    status: StepStatus
    text: str = ""
    elapsed_s: float | None = None
    serial: int = 0


@dataclass(frozen=True)
class AuditEntry:
    """Who asked for what, and what came of it. Never a secret."""

    at: datetime
    actor: str
    action: str
    lab_id: str
    outcome: str
    detail: str = ""
