"""labctl's own SSH keys, one folder for each lab."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from provisioner.credentials.private_files import (
    add_private_file,
    ensure_private_folder,
    read_private_file,
    sync_folder,
    translated,
)
from provisioner.errors import CredentialError
from provisioner.ports import KeyPair
from provisioner.rules.naming import check_lab_id

_TRIAL = "trial-"


class FileCredentials:
    """Keys as files below `<state>/keys/<lab_id>/`: 0600 in folders of 0700.

    A lab's key is named by its generation, a trial's is `trial-<slot>`. All are ed25519 in
    OpenSSH's format without a passphrase; the public half is derived, never stored. A text that
    is no lab id is refused with InputError before any path is made of it.

    Args:
        state_dir: labctl's state folder.
    """

    def __init__(self, state_dir: Path) -> None:
        self._home = state_dir.absolute() / "keys"

    def ensure_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        """Make the lab's key if there is none, and return it."""
        path = self._get_folder(lab_id) / str(generation)
        if read_private_file(path) is None:
            self._add(path)
        return self.get_lab_key(lab_id, generation)

    def get_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        """Return the lab's key.

        Raises CredentialError when there is none, it is damaged, or others could read it.
        """
        return _read(self._get_folder(lab_id) / str(generation))

    def make_trial_key(self, lab_id: str, slot: str) -> KeyPair:
        """Make the key for one run of trials on a guest, in place of one that a dead run left."""
        path = self._get_folder(lab_id) / f"{_TRIAL}{slot}"
        self.destroy_trial_key(KeyPair(str(path), ""))
        self._add(path)
        return _read(path)

    def destroy_trial_key(self, key: KeyPair) -> None:
        """Remove a trial key. Idempotent.

        Raises CredentialError when the file is not one that `make_trial_key` made.
        """
        path = Path(key.private_file)
        if path != self._get_folder(path.parent.name) / path.name or not path.name.startswith(
            _TRIAL
        ):
            raise CredentialError(f"{path} is no trial key of labctl's: it stays where it is")
        with translated("remove", path), suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def destroy_lab_keys(self, lab_id: str) -> None:
        """Remove every key of the lab, of all its generations and trials. Idempotent."""
        folder = self._get_folder(lab_id)
        with translated("remove", folder), suppress(FileNotFoundError):
            shutil.rmtree(folder)
            sync_folder(self._home)

    def _get_folder(self, lab_id: str) -> Path:
        return self._home / check_lab_id(lab_id)

    def _add(self, path: Path) -> None:
        ensure_private_folder(self._home)
        ensure_private_folder(path.parent)
        private = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
        )
        add_private_file(path, private)


def _read(path: Path) -> KeyPair:
    private = read_private_file(path)
    if private is None:
        raise CredentialError(
            f"there is no key {path}",
            hint="it went with its lab, or the state folder is not the one of this lab",
        )
    try:
        public = load_ssh_private_key(private, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialError(
            f"the key {path} is damaged", hint="bring it back from the backup of the state folder"
        ) from error
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(private_file=str(path), public_key=line)
