"""The dossier: what a VM carries beside its mark, so that a store that was lost can be rebuilt.

It holds what was decided before the clone, and the guest's host key once that is pinned: vCenter
forgets what a guest published when it is powered off. It holds no secret; how far the lab came
since is read from the world. A dossier is believed only when its signature was checked
(`rules.mark`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from provisioner.errors import StoreError
from provisioner.model.lab import Desired, GuestRecord, Lab, LabState

LONGEST_CHARS = 32_768


@dataclass(frozen=True)
class _Dossier:
    lab: Lab
    guest: GuestRecord


_ADAPTER = TypeAdapter(_Dossier)


def build_dossier(lab: Lab, guest: GuestRecord) -> str:
    """Write what a store must know of a guest and its lab, as compact JSON."""
    dossier = _Dossier(
        lab=replace(
            lab,
            desired=Desired.PRESENT,
            state=LabState.PROVISIONING,
            ready_at=None,
            closed_at=None,
            note="",
        ),
        guest=GuestRecord(
            guest.identity, guest.vm_name, guest.nonce, pin=guest.pin, host_key=guest.host_key
        ),
    )
    return _ADAPTER.dump_json(dossier).decode()


def parse_dossier(text: str) -> tuple[Lab, GuestRecord]:
    """Read a dossier. Raises StoreError when it is too long, or none of this labctl's."""
    try:
        dossier = _ADAPTER.validate_json(text if len(text) <= LONGEST_CHARS else "")
    except ValidationError as error:
        raise StoreError(
            "the VM's dossier is not one that this labctl knows",
            hint="use the labctl that provisioned the lab",
        ) from error
    return dossier.lab, dossier.guest
