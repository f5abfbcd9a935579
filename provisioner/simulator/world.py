"""The simulated vCenter's memory: managed objects, their versions, sessions, files and events.

One lock guards all of it. Whoever changes an object calls ``touch`` under the lock; that wakes every
waiting property collector. Nobody holds the lock while a guest is worked on.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import F_OPTIONAL

from provisioner.simulator.codec import blank, complete, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from provisioner.simulator.guests import GuestRuntime

RecordT = TypeVar("RecordT", bound="Record")


def now() -> datetime:
    """Return the time, aware UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the simulator has no ports: it is a server of its own


class Record:
    """One managed object: its reference and its stored properties.

    Properties that follow from others are computed by the functions in ``DERIVED``.
    """

    def __init__(self, ref: Any, **props: Any) -> None:
        self.ref = ref
        self.props: dict[str, Any] = {name: complete(value) for name, value in props.items()}
        self.revision = 0
        self.busy = threading.Lock()
        """Held by the task that works on the object."""
        self.session: Session | None = None
        """The session that a view, filter or collector lives and dies with."""


DERIVED: dict[tuple[type, str], Callable[[World, Any], Any]] = {}


def derives(kind: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function that computes one property of one managed object type."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        DERIVED[kind, name] = function
        return function

    return register


@dataclass(eq=False)
class Session:
    """One login; what belongs to it ends with it."""

    key: str
    info: vim.UserSession
    open: bool = True
    collector: Any = None
    """Its default property collector, made when first used."""


@dataclass(slots=True)
class DatastoreFile:
    """One file on a datastore; ``owner`` is the moId of the VM that made it."""

    size_bytes: int
    capacity_kib: int = 0
    owner: str = ""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Settings:
    """What one simulator is started with."""

    username: str
    password: str
    instance_uuid: str
    first_event_key: int = 1
    datastore_gib: int = 500
    method_delays_s: Mapping[str, float] = field(default_factory=dict)


class World:
    """Everything the simulated vCenter knows."""

    def __init__(self, guests: GuestRuntime, settings: Settings) -> None:
        self.guests = guests
        self.settings = settings
        self.changed = threading.Condition(threading.RLock())
        self.closing = threading.Event()
        self.revision = 0
        self.records: dict[str, Record] = {}
        self.sessions: dict[str, Session] = {}
        self.files: dict[str, DatastoreFile] = {}
        self.events: deque[vim.event.Event] = deque(maxlen=5000)
        self.tasks: deque[Record] = deque()
        self.reserved_names: set[tuple[str, str]] = set()
        """(folder moId, name) of VMs that a running clone is making."""
        self.template_disks: set[str] = set()
        """Base disks of VM templates: they outlive every VM."""
        self.requests: Counter[str] = Counter()
        self._event_keys = itertools.count(settings.first_event_key)
        self.macs = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._ids: dict[str, itertools.count[int]] = {}

    def new_id(self, prefix: str) -> str:
        """Return a moId that was never used before."""
        with self.changed:
            return f"{prefix}-{next(self._ids.setdefault(prefix, itertools.count(1)))}"

    def add(self, record: RecordT) -> RecordT:
        """Add a managed object."""
        with self.changed:
            self.records[record.ref._moId] = record  # noqa: SLF001 - pyVmomi's public accessor
            self.touch(record)
        return record

    def remove(self, *records: Record) -> None:
        """Remove managed objects."""
        with self.changed:
            for record in records:
                self.records.pop(record.ref._moId, None)  # noqa: SLF001 - as above
            self.touch()

    def touch(self, *records: Record) -> None:
        """Say that objects changed, and wake whoever waits for changes."""
        with self.changed:
            self.revision += 1
            for record in records:
                record.revision = self.revision
            self.changed.notify_all()

    def find(self, ref: Any) -> Any:
        """Return the record of a reference, None when there is no such object."""
        record = None if ref is None else self.records.get(ref._moId)  # noqa: SLF001 - as above
        return record if record is not None and isinstance(record.ref, type(ref)) else None

    def get(self, ref: Any) -> Any:
        """Return the record of a reference.

        Raises:
            vmodl.fault.ManagedObjectNotFound: there is no such object.
        """
        record = self.find(ref)
        if record is None:
            moid = getattr(ref, "_moId", None)
            raise vmodl.fault.ManagedObjectNotFound(
                obj=ref, msg=f"The object '{ref}' has already been deleted or never existed: {moid}"
            )
        return record

    def of_type(self, kind: Any) -> Iterator[Any]:
        """Yield the records of a managed object type, oldest first."""
        return (record for record in list(self.records.values()) if isinstance(record.ref, kind))

    def read(self, record: Record, name: str) -> Any:
        """Return one property of a managed object as pyVmomi types it, None when it is unset."""
        kind = type(record.ref)
        info = kind._GetPropertyInfo(name)  # noqa: SLF001 - pyVmomi's public metadata
        for ancestor in kind.__mro__:
            if function := DERIVED.get((ancestor, name)):
                value = complete(function(self, record))
                break
        else:
            value = record.props.get(name)
        if value is None and not info.flags & F_OPTIONAL:
            value = blank(info.type)
        return typed(value, info.type)

    def start_thread(self, work: Callable[[], None]) -> None:
        """Do work that answers to nobody in a thread that ``close`` waits for."""
        thread = threading.Thread(target=work, daemon=True)
        with self.changed:
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
        thread.start()

    def close(self, grace_s: float = 60.0) -> None:
        """Cancel every wait and task, and return when their threads have ended."""
        self.closing.set()
        self.touch()
        deadline = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def entity_name(self, ref: Any) -> str:
        """Return the name of an inventory object."""
        return str(self.read(self.get(ref), "name"))

    def log_event(self, kind: Any, vm: Record | None, message: str, **details: Any) -> None:
        """Append an event; its key is greater than every earlier one."""
        with self.changed:
            key = next(self._event_keys)
            event = kind(
                key=key, chainId=key, createdTime=now(), userName=self.settings.username, **details
            )
            event.fullFormattedMessage = message
            if vm is not None:
                event.vm = vim.event.VmEventArgument(name=self.entity_name(vm.ref), vm=vm.ref)
            self.events.append(complete(event))
            self.touch(self.records["EventManager"])
