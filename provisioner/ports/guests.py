"""What reaches into guests: SSH, Ansible, and labctl's own keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from provisioner.model.observed import (
    PlayProgress,
    PlayRecap,
    ShellResult,
)


@dataclass(frozen=True)
class ShellTarget:
    """A guest as SSH sees it: pinned by `alias` and `host_key`, never by address.

    `jump` is `user@host:port` or empty.
    """

    alias: str
    address: str
    host_key: str
    user: str
    key_file: str
    port: int = 22
    jump: str = ""


class GuestShell(Protocol):
    """SSH into guests with pinned host keys."""

    def wait_for_login(self, target: ShellTarget, timeout_s: float) -> None:
        """Wait until a login works. Raises HostKeyError at once when the key is another."""
        ...

    def run(
        self, target: ShellTarget, command: str, *, stdin: str = "", timeout_s: float
    ) -> ShellResult:
        """Run `command` with `stdin` and return its result; a non-zero status is no error."""
        ...


@dataclass(frozen=True)
class PlayOrder:
    """One Ansible run.

    `inventory` is the whole Ansible inventory as plain data, without a secret.
    """

    lab_id: str
    playbook: str
    inventory: dict[str, Any]


class Configurator(Protocol):
    """Ansible."""

    def run_play(
        self,
        order: PlayOrder,
        on_event: Callable[[PlayProgress], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[PlayRecap, ...]:
        """Run a playbook to its end and return the recap of every guest.

        Raises PlayFailedError or GuestUnreachableError naming guest and play task, StoppedError
        when `is_cancelled` turned true: then everything the run started has ended.
        """
        ...


@dataclass(frozen=True)
class KeyPair:
    """An SSH key of labctl's own: where its private half is (0600), and its public line."""

    private_file: str
    public_key: str


class Credentials(Protocol):
    """labctl's own keys. Private halves never leave their one home."""

    def ensure_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        """Make the lab's key if there is none, and return it."""
        ...

    def get_lab_key(self, lab_id: str, generation: int) -> KeyPair:
        """Return the lab's key. Raises CredentialError when there is none."""
        ...

    def make_trial_key(self, lab_id: str, slot: str) -> KeyPair:
        """Make the key for one run of trials on a guest, in place of one that a dead run left."""
        ...

    def destroy_trial_key(self, key: KeyPair) -> None:
        """Remove a trial key. Idempotent."""
        ...

    def destroy_lab_keys(self, lab_id: str) -> None:
        """Remove every key of the lab, of all its generations. Idempotent."""
        ...
