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


@dataclass(frozen=True)
class GuestRecord:
    """What the store knows of one guest.

    `moref`, `address` and `vim_task` are hints, read again before they are used. `nonce` is the
    word by which the guest's published host key is recognised. `birth_disks` are the datastore
    paths of the disks that the VM was born with.
    """

    identity: GuestIdentity
    vm_name: str
    nonce: str
    vim_task: str = ""
    moref: str = ""
    mac: str = ""
    address: str = ""
    host_key: str = ""
    birth_disks: tuple[str, ...] = ()


class StepStatus(StrEnum):
    """How a step of work stands."""

    STARTED = "started"
    NOTE = "note"
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
