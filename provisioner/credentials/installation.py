"""Who this installation is: an id that everybody may see, and a key that only we hold."""

from __future__ import annotations

import json
import secrets
import uuid
from pathlib import Path

from provisioner.credentials.private_files import (
    add_private_file,
    ensure_private_folder,
    read_private_file,
)
from provisioner.errors import CredentialError
from provisioner.rules.mark import Installation

_ID_CHARS = 12
_KEY_BYTES = 32


def ensure_installation(state_dir: Path) -> Installation:
    """Make this installation's identity when there is none, and return it.

    It is kept in `<state>/installation.json` (0600), outside the store: whoever loses it can no
    longer prove which VMs are his, so it belongs into every backup.
    """
    path = _get_path(state_dir)
    if read_private_file(path) is None:
        ensure_private_folder(path.parent)
        fresh = {
            "installation_id": uuid.uuid4().hex[:_ID_CHARS],
            "key": secrets.token_hex(_KEY_BYTES),
        }
        add_private_file(path, (json.dumps(fresh) + "\n").encode())
    return get_installation(state_dir)


def get_installation(state_dir: Path) -> Installation:
    """Return this installation's identity. Raises CredentialError when there is none."""
    path = _get_path(state_dir)
    data = read_private_file(path)
    if data is None:
        raise CredentialError(
            f"this installation has no identity yet: there is no {path}", hint="run: labctl init"
        )
    try:
        fields = json.loads(data)
        installation_id, key = fields["installation_id"], bytes.fromhex(fields["key"])
        complete = len(key) == _KEY_BYTES and len(bytes.fromhex(installation_id)) * 2 == _ID_CHARS
    except (ValueError, TypeError, KeyError):
        # Not chained: the text of a JSON error could repeat a part of the key.
        complete = False
    if not complete:
        raise CredentialError(
            f"{path} is damaged",
            hint="bring it back from the backup of the state folder: a new one owns no lab",
        )
    return Installation(installation_id=installation_id, key=key)


def _get_path(state_dir: Path) -> Path:
    return state_dir.absolute() / "installation.json"
