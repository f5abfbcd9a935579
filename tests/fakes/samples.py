"""Small, valid values that tests change with `dataclasses.replace`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    Hire,
    Lab,
    LabState,
    Lease,
)
from provisioner.model.spec import Blueprint, Site

NOW = datetime(2026, 3, 2, 9, 30, 0, 123456, tzinfo=UTC)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMFZiq4b4CFvqu1BGCvhFxE1hKkEOcnPVeYxNB3sXGqB"
VCENTER = "7d3f1c52-0000-4000-8000-00000000c0de"


def make_blueprint(*slots: str) -> Blueprint:
    return Blueprint.model_validate(
        {
            "blueprint": "mlops-onboarding",
            "title": "MLOps sandbox",
            "short": "mlops",
            "lease": {"default_days": 14, "max_days": 60, "grace_days": 3},
            "guests": [
                {
                    "slot": slot,
                    "vm_template": "debian-13",
                    "cpus": 2,
                    "memory_mib": 4096,
                    "networks": ["lab"],
                    "roles": ["linux_baseline", "hire_account", "docker_engine", "mlflow_server"],
                }
                for slot in slots or ("workbench",)
            ],
        }
    )


def make_lab(lab_id: str = "ana-mlops", generation: int = 1, *slots: str) -> Lab:
    login = lab_id.rpartition("-")[0] or "ana"
    return Lab(
        lab_id=lab_id,
        generation=generation,
        site="plant",
        vcenter_uuid=VCENTER,
        event_key=4711,
        blueprint=make_blueprint(*slots),
        hire=Hire(f"{login}@example.com", login, KEY),
        lease=Lease(NOW + timedelta(days=14), timedelta(days=3)),
        desired=Desired.PRESENT,
        state=LabState.PROVISIONING,
        created_at=NOW,
    )


def make_guests(lab: Lab, **hints: str | tuple[str, ...]) -> tuple[GuestRecord, ...]:
    values: dict[str, object] = {"address": "192.0.2.10", "host_key": KEY, **hints}
    return tuple(
        GuestRecord(
            identity=GuestIdentity(
                lab.lab_id,
                lab.generation,
                spec.slot,
                f"{lab.lab_id}-{lab.generation}-{spec.slot}-uuid",
            ),
            vm_name=f"{lab.lab_id}-{spec.slot}",
            nonce="0123456789abcdef" * 2,
            **values,  # type: ignore[arg-type]
        )
        for spec in lab.blueprint.guests
    )


def make_audit(lab_id: str = "ana-mlops", action: str = "provision") -> AuditEntry:
    return AuditEntry(at=NOW, actor="it", action=action, lab_id=lab_id, outcome="asked")


def make_site(**changes: object) -> Site:
    data: dict[str, object] = {
        "site": "plant",
        "vcenter": {"host": "vcenter.example.com", "username": "labctl@vsphere.local"},
        "placement": {
            "datacenter": "/DC0",
            "folder": "/DC0/vm/labs",
            "resource_pool": "/DC0/host/cluster-0/Resources",
            "datastores": ["datastore-0"],
        },
        "networks": {"lab": "/DC0/network/lab"},
        "vm_templates": {
            "debian-13": {"path": "/DC0/vm/templates/debian-13", "snapshot": "labctl-base"}
        },
        **changes,
    }
    return Site.model_validate(data)


def ignore(_told: object) -> None:
    """Hear of progress, or of a vim task, and do nothing about it."""
