"""One sealed file with all that cannot be made anew, and putting it back."""

from __future__ import annotations

import getpass
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from provisioner.app.wiring import House
from provisioner.app.worker import UNDER_WAY
from provisioner.app.worker_process import find_holder, keeping_workers_out
from provisioner.credentials import get_installation
from provisioner.credentials.private_files import (
    add_private_file,
    ensure_private_folder,
    read_private_file,
    sync_folder,
    translated,
)
from provisioner.credentials.sealing import seal, unseal
from provisioner.errors import (
    BusyError,
    InputError,
    RefusedError,
    RestoredStoreError,
    to_data,
)
from provisioner.model.lab import AuditEntry, WorkItem, WorkStatus
from provisioner.rules.naming import check_lab_id
from provisioner.rules.restored import RESTORED_NOTE, find_restored_at
from provisioner.store import SqlStore, open_store

STORE = "labctl.db"
ENGINE = "engine.db"
INSTALLATION = "installation.json"
KEYS = "keys"


class Backup(BaseModel):
    """What a backup holds: the store as it was then, who the installation is, and labs' keys.

    `keys` are by `lab id/generation`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64"
    )

    made_at: datetime
    installation_id: str
    installation: bytes
    store: bytes
    keys: dict[str, bytes]


def make_backup(house: House, target: Path, passphrase: str) -> Backup:
    """Write a backup, sealed with a passphrase, to a new file of mode 0600.

    Others may write to the store meanwhile: the backup is the store of one moment.

    Raises:
        RefusedError: the file is there already.
        InputError: there is no store.
        CredentialError: there is no installation, or the file cannot be written.
        StoreError: the store cannot be read.
    """
    if target.exists():
        raise _is_taken(target)
    if not (house.state / STORE).exists():
        raise InputError(
            f"there is no store in {house.state}", hint="labctl adopt rebuilds one that was lost"
        )
    made_at = house.clock.now()
    with _draft(house.state) as draft:
        house.store.copy_to(draft / STORE)
        store = (draft / STORE).read_bytes()
    backup = Backup(
        made_at=made_at,
        installation_id=get_installation(house.state).installation_id,
        installation=read_private_file(house.state / INSTALLATION) or b"",
        store=store,
        keys=dict(_read_keys(house.state)),
    )
    if not add_private_file(target, seal(backup.model_dump_json().encode(), passphrase)):
        raise _is_taken(target)
    return backup


def _is_taken(target: Path) -> RefusedError:
    return RefusedError(f"{target} is there already", hint="name a new file")


def _read_keys(state: Path) -> Iterator[tuple[str, bytes]]:
    """Read the labs' keys; those of trials are gone with their run."""
    for path in sorted((state / KEYS).glob("*/*")):
        if path.name.isdecimal() and (data := read_private_file(path)):
            yield f"{path.parent.name}/{path.name}", data


def open_backup(source: Path, passphrase: str) -> Backup:
    """Read a backup. Raises InputError when it cannot be read, or the passphrase is another one."""
    try:
        sealed = source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    try:
        backup = Backup.model_validate_json(unseal(sealed, passphrase, str(source)))
    except ValidationError as error:
        raise InputError(f"{source} holds something else than a backup of labctl") from error
    for name in backup.keys:
        lab_id, _, generation = name.partition("/")
        check_lab_id(lab_id)
        if not generation.isdecimal():
            raise InputError(f"{source} holds a key of a strange name")
    return backup


class Restoring:
    """A backup on its way back into a state folder. The store must not be open in this process."""

    def __init__(self, house: House, backup: Backup) -> None:
        self._house = house
        self._state = house.state
        self._backup = backup

    def list_replaced(self) -> tuple[Path, ...]:
        """List what is in the way: it is moved aside, never deleted."""
        found = [*self._state.glob(f"{STORE}*"), *self._state.glob(f"{ENGINE}*")]
        identity = self._state / INSTALLATION
        if identity.exists() and not self._is_same(identity, self._backup.installation):
            found += [identity, *self._state.glob(KEYS)]
        else:
            found += [
                path
                for name, data in self._backup.keys.items()
                if (path := self._state / KEYS / name).exists() and not self._is_same(path, data)
            ]
        return tuple(sorted(found))

    def restore(self) -> Path | None:
        """Put everything back, and return the folder with what was moved aside, if anything was.

        Work that was open when the backup was made is closed as failed, and the store notes that
        it was put back: nothing is ended by it before `adopt` has compared it with vCenter.

        Raises:
            BusyError: a worker, or another labctl, uses the state folder.
            StoreError: the store of the backup is of another version; nothing was changed.
        """
        with keeping_workers_out(self._state), _draft(self._state) as draft:
            self._refuse_when_open()
            add_private_file(draft / INSTALLATION, self._backup.installation)
            get_installation(draft)  # refuses a damaged one
            add_private_file(draft / STORE, self._backup.store)
            self._prepare(draft / STORE)
            aside = self._move_aside()
            for name, data in self._backup.keys.items():
                path = self._state / KEYS / name
                ensure_private_folder(path.parent.parent)
                ensure_private_folder(path.parent)
                add_private_file(path, data)
            with translated("restore", self._state):
                for name in (INSTALLATION, STORE):  # the store last: without it nothing is done
                    (draft / name).rename(self._state / name)
                sync_folder(self._state)
        return aside

    def _is_same(self, path: Path, data: bytes) -> bool:
        return path.is_file() and read_private_file(path) == data

    def _refuse_when_open(self) -> None:
        holder = find_holder(self._state / STORE)
        if holder is not None:
            raise BusyError(
                f"another labctl (process {holder}) uses {self._state / STORE}",
                hint="wait for its end, or stop it",
            )

    def _prepare(self, path: Path) -> None:
        store = open_store(path)
        try:
            made_at, now = self._backup.made_at, self._house.clock.now()
            store.set_note(
                RESTORED_NOTE, min(find_restored_at(store) or made_at, made_at).isoformat()
            )
            for item in store.list_open_work():
                self._close_work(store, item, now)
            detail = f"from a backup of {made_at.isoformat()}"
            store.record(AuditEntry(now, getpass.getuser(), "restore", "", "done", detail))
        finally:
            store.close()

    def _close_work(self, store: SqlStore, item: WorkItem, now: datetime) -> None:
        """Close work that was open: what became of it is not known here."""
        error = RestoredStoreError(
            f"{item.workflow} was under way when the backup of the store was made",
            hint=f"run labctl adopt, then labctl retry {item.lab_id}",
        )
        store.set_work(item.serial, WorkStatus.FAILED, now, to_data(error))
        lab, states = store.find_lab(item.lab_id), UNDER_WAY.get(item.workflow)
        if lab and states and (lab.generation, lab.state) == (item.generation, states[0]):
            store.set_state(lab.lab_id, lab.generation, states[1], now, note=error.what)

    def _move_aside(self) -> Path | None:
        replaced = self.list_replaced()
        if not replaced:
            return None
        aside = self._state / f"replaced-{self._house.clock.now():%Y%m%dT%H%M%SZ}"
        with translated("move aside into", aside):
            for path in replaced:
                target = aside / path.relative_to(self._state)
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.rename(target)
        return aside


@contextmanager
def _draft(state: Path) -> Iterator[Path]:
    """Have a private folder beside what it is for, until the end."""
    draft = state / f".draft-{secrets.token_hex(8)}"
    ensure_private_folder(draft)
    try:
        yield draft
    finally:
        shutil.rmtree(draft)
