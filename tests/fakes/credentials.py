"""Credentials without files: keys are texts that look like keys and open nothing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from provisioner.errors import CredentialError
from provisioner.ports import KeyPair


@dataclass
class FakeCredentials:
    """Keys by lab and name, as `FileCredentials` keeps them."""

    keys: dict[tuple[str, str], KeyPair] = field(default_factory=dict)
    _serials: itertools.count[int] = field(default_factory=itertools.count)

    def ensure_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        return self.keys.get((lab_id, str(generation))) or self._make(lab_id, str(generation))

    def get_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        try:
            return self.keys[lab_id, str(generation)]
        except KeyError as error:
            raise CredentialError(f"there is no key of lab {lab_id}") from error

    def make_trial_key(self, lab_id: str, slot: str) -> KeyPair:
        self.keys.pop((lab_id, f"trial-{slot}"), None)
        return self._make(lab_id, f"trial-{slot}")

    def destroy_trial_key(self, key: KeyPair) -> None:
        lab_id, name = key.private_file.split("/")[-2:]
        if not name.startswith("trial-"):
            raise CredentialError(f"{key.private_file} is no trial key")
        self.keys.pop((lab_id, name), None)

    def destroy_lab_keys(self, lab_id: str) -> None:
        self.keys = {at: key for at, key in self.keys.items() if at[0] != lab_id}

    def _make(self, lab_id: str, name: str) -> KeyPair:
        key = KeyPair(f"/fake/keys/{lab_id}/{name}", f"ssh-ed25519 FAKE{next(self._serials)}")
        return self.keys.setdefault((lab_id, name), key)
