"""Our frozen types as rows of the tables, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from provisioner.errors import StoreError
from provisioner.model.lab import (
    AuditEntry,
    GuestIdentity,
    GuestRecord,
    Hire,
    Lab,
    Lease,
    Progress,
    TemplatePin,
    WorkItem,
)
from provisioner.model.spec import Blueprint

_SAME_IN_LAB = frozenset(field.name for field in fields(Lab)) - {"blueprint", "hire", "lease"}


def lab_to_row(lab: Lab) -> dict[str, Any]:
    """Flatten a lab."""
    return {
        **{name: getattr(lab, name) for name in _SAME_IN_LAB},
        "blueprint": lab.blueprint.model_dump(mode="json"),
        "hire_email": lab.hire.email,
        "hire_login": lab.hire.login,
        "hire_key": lab.hire.public_key,
        "lease_ends_at": lab.lease.ends_at,
        "lease_grace_s": lab.lease.grace_for.total_seconds(),
    }


def row_to_lab(row: Mapping[Any, Any]) -> Lab:
    """Build a lab from its row. Raises StoreError when its blueprint is not one we know."""
    try:
        blueprint = Blueprint.model_validate(row["blueprint"])
    except ValidationError as error:
        raise StoreError(
            f"the store keeps a blueprint of lab {row['lab_id']} that this labctl does not know",
            hint="use the labctl that provisioned the lab",
        ) from error
    return Lab(
        **{name: row[name] for name in _SAME_IN_LAB},
        blueprint=blueprint,
        hire=Hire(row["hire_email"], row["hire_login"], row["hire_key"]),
        lease=Lease(row["lease_ends_at"], timedelta(seconds=row["lease_grace_s"])),
    )


def guest_to_row(place: int, guest: GuestRecord) -> dict[str, Any]:
    """Flatten a guest; `place` is its place in the blueprint."""
    own = {name: hint_to_column(value) for name, value in vars(guest).items() if name != "identity"}
    return {"place": place, **vars(guest.identity), **own}


def hint_to_column(hint: Any) -> Any:
    """Turn what is known of a guest into what its column keeps."""
    if isinstance(hint, TemplatePin):
        return vars(hint)
    return list(hint) if isinstance(hint, tuple) else hint


def row_to_guest(row: Mapping[Any, Any]) -> GuestRecord:
    """Build a guest from its row."""
    own = {name: value for name, value in row.items() if name != "place"}
    identity = GuestIdentity(**{field.name: own.pop(field.name) for field in fields(GuestIdentity)})
    pin = TemplatePin(**own["pin"]) if own["pin"] else None
    return GuestRecord(identity, **{**own, "birth_disks": tuple(own["birth_disks"]), "pin": pin})


def row_to_work(row: Mapping[Any, Any]) -> WorkItem:
    """Build a piece of work from its row."""
    return WorkItem(**row)


def progress_to_row(progress: Progress) -> dict[str, Any]:
    """Build a log row; the database gives it its serial."""
    return {name: value for name, value in vars(progress).items() if name != "serial"}


def row_to_progress(row: Mapping[Any, Any]) -> Progress:
    """Build a line of a lab's log from its row."""
    return Progress(**row)


def audit_to_row(entry: AuditEntry) -> dict[str, Any]:
    """Build an audit row."""
    return dict(vars(entry))


def row_to_audit(row: Mapping[Any, Any]) -> AuditEntry:
    """Build an audit entry from its row."""
    return AuditEntry(**{name: value for name, value in row.items() if name != "serial"})
