"""The mark: a VM's birth certificate in its extraConfig, and how it is judged.

A mark names installation, lab, generation, slot and instance UUID, with an HMAC over them. It is
ours only on the VM whose instance UUID it names: a copy made by hand carries our words on another
VM. What a mark says is untrusted input until its HMAC was checked.

Beside it lies the dossier: any text, with an HMAC over it and the same words, so that it counts on
that one VM only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any

from provisioner.model.lab import GuestIdentity
from provisioner.model.observed import Ownership

MARK_KEY = "labctl.mark"
DOSSIER_KEY = "labctl.dossier"
VERSION = 1
LONGEST_CHARS = 2048
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_WORDS = ("installation", "lab", "slot", "uuid", "hmac")


@dataclass(frozen=True)
class Installation:
    """One labctl: its id, and the key that makes its marks."""

    installation_id: str
    key: bytes = field(repr=False)


def build_mark(installation: Installation, identity: GuestIdentity) -> str:
    """Build the text that goes into extraConfig under `MARK_KEY`."""
    claim = _claim(installation, identity)
    return _render({**claim, "hmac": _sign(installation, claim)})


def read_mark(
    installation: Installation, text: str | None, instance_uuid: str
) -> tuple[Ownership, GuestIdentity | None]:
    """Judge a mark found on the VM with that instance UUID. Never raises.

    Returns:
        Whose VM it is, and whom the mark names: for another installation's that is its claim,
        which nobody here can check. None with UNMARKED (no text) and VOID.
    """
    if not text:
        return Ownership.UNMARKED, None
    claim = _parse(text)
    if claim is None:
        return Ownership.VOID, None
    given = claim.pop("hmac")
    identity = GuestIdentity(claim["lab"], claim["generation"], claim["slot"], claim["uuid"])
    if claim["installation"] != installation.installation_id:
        return Ownership.OTHER_INSTALLATION, identity
    if not hmac.compare_digest(given, _sign(installation, claim)):
        return Ownership.VOID, None
    genuine = claim["uuid"] == instance_uuid.lower()
    return (Ownership.OURS if genuine else Ownership.COPY), identity


def build_dossier(installation: Installation, identity: GuestIdentity, text: str) -> str:
    """Build what goes into extraConfig under `DOSSIER_KEY`: letters that every vCenter keeps.

    Without a text it is empty, which removes the key.
    """
    if not text:
        return ""
    hmac_hex = _sign(installation, {**_claim(installation, identity), "dossier": text})
    return f"{hmac_hex} {base64.b64encode(text.encode()).decode()}"


def read_dossier(installation: Installation, identity: GuestIdentity, value: str | None) -> str:
    """Return the text of a dossier found beside the mark of `identity`. Never raises.

    It is empty unless this installation wrote it for that very guest and instance UUID.
    """
    given, _, encoded = (value or "").partition(" ")
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return ""
    wanted = _sign(installation, {**_claim(installation, identity), "dossier": text})
    return text if hmac.compare_digest(given.encode(), wanted.encode()) else ""


def _claim(installation: Installation, identity: GuestIdentity) -> dict[str, Any]:
    return {
        "v": VERSION,
        "installation": installation.installation_id,
        "lab": identity.lab_id,
        "generation": identity.generation,
        "slot": identity.slot,
        "uuid": identity.instance_uuid.lower(),
    }


def _parse(text: str) -> dict[str, Any] | None:
    if len(text) > LONGEST_CHARS:
        return None
    try:
        claim = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(claim, dict) or set(claim) != {"v", "generation", *_WORDS}:
        return None
    words = all(isinstance(claim[name], str) and _WORD.fullmatch(claim[name]) for name in _WORDS)
    numbers = type(claim["v"]) is int and type(claim["generation"]) is int
    return claim if words and numbers and claim["v"] == VERSION else None


def _sign(installation: Installation, claim: dict[str, Any]) -> str:
    return hmac.new(installation.key, _render(claim).encode(), hashlib.sha256).hexdigest()


def _render(claim: dict[str, Any]) -> str:
    return json.dumps(claim, separators=(",", ":"), sort_keys=True)
