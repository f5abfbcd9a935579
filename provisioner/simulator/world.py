"""The simulated vCenter's memory: managed objects and their versions, methods, files and events.

One lock guards all of it. Whoever changes an object calls ``touch`` under the lock; that wakes
every waiting property collector. Nobody holds the lock while a guest is worked on.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter, deque
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pyVmomi import vim, vmodl
from pyVmomi.VmomiSupport import F_OPTIONAL

from provisioner.simulator.codec import blank, complete, field_of, moid_of, typed
from provisioner.simulator.fault_rules import Faults, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from provisioner.simulator.guests import GuestRuntime

RecordT = TypeVar("RecordT", bound="Record")
DERIVED: dict[tuple[type, str], Callable[[World, Any], Any]] = {}
"""Properties that follow from others, by managed object type and name."""
METHODS: dict[tuple[type, str], Callable[[Call], Any]] = {}
"""What answers a WSDL method, by managed object type and name."""


def now() -> datetime:
    """Return the time, aware UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the simulator is a server of its own: it has no ports


def derives(kind: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function that computes a property."""
    return lambda function: DERIVED.setdefault((kind, name), function)


def answers(kind: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function that answers a method."""
    return lambda function: METHODS.setdefault((kind, name), function)


class Record:
    """One managed object: its reference, its stored properties, and what is not for clients."""

    def __init__(self, ref: Any, session: Session | None = None, **props: Any) -> None:
        self.ref = ref
        self.moid = moid_of(ref)
        self.session = session
        """The login that a view, filter or collector lives and dies with."""
        self.props: dict[str, Any] = {name: complete(value) for name, value in props.items()}
        self.revision = 0
        self.busy = threading.Lock()
        """Held while the object's guest is worked on."""
        self.works: list[Any] = []
        """The tasks under way on the object."""


@dataclass(eq=False)
class Session:
    """One login, and its default property collector once that was used."""

    info: vim.UserSession
    open: bool = True
    collector: Any = None
    calls: int = 0
    """Calls under way: they keep it from being idle."""
    used_at_s: float = field(default_factory=time.monotonic)


SESSION: ContextVar[Session | None] = ContextVar("SESSION", default=None)
"""Whose call is being answered; sessionManager.currentSession is read through it."""


@dataclass
class Call:
    """One call: the object it is for, the method, its arguments, and whose it is.

    A method that logs in or out replaces ``session``; the server turns that into a cookie.
    """

    world: World
    record: Any
    method: Any
    args: Any
    session: Session | None
    rule: Rule | None = None
    """The fault rule that fires at the call."""


@dataclass(slots=True)
class DatastoreFile:
    """One file on a datastore; ``owner`` is the ``vm_id`` of the VM that made it."""

    size_bytes: int
    capacity_kib: int = 0
    owner: str = ""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    made_at: datetime = field(default_factory=now)


@dataclass
class Memory:
    """The inventory as it was: every object with its reference and properties, and the events."""

    objects: list[tuple[Record, Any, dict[str, Any]]]
    events: list[Any]
    next_event_key: int


@dataclass
class Settings:
    """What one simulator is started with."""

    username: str
    password: str
    instance_uuid: str
    first_event_key: int = 1
    datastore_gib: float = 500
    method_delays_s: Mapping[str, float] = field(default_factory=dict)
    clock_offset_s: float = 0.0
    """How far vCenter's clock is ahead of this machine's."""
    session_idle_s: float = 1800.0
    """A session that makes no call for so long ends, as vCenter does it after 30 minutes."""


class World:
    """Everything the simulated vCenter knows."""

    def __init__(self, guests: GuestRuntime, settings: Settings) -> None:
        self.guests = guests
        self.settings = settings
        self.changed = threading.Condition(threading.RLock())
        self.closing = threading.Event()
        self.records: dict[str, Record] = {}
        self.sessions: dict[str, Session] = {}
        self.files: dict[str, DatastoreFile] = {}
        self.events: deque[Any] = deque(maxlen=5000)
        self.tasks: deque[Any] = deque()
        self.requests: Counter[str] = Counter()
        self.faults = Faults()
        self.users: dict[str, Any] = {}
        """Users besides the administrator, by their names in lower case."""
        self.memories: dict[str, Memory] = {}
        self.macs = itertools.count(1)
        self.reserved_names: set[tuple[str, str]] = set()
        """(folder moId, name) of VMs that a running clone is making."""
        self.template_disks: set[str] = set()
        """Base disks of VM templates: they outlive every VM."""
        self._revisions = itertools.count(1)
        self.next_event_key = settings.first_event_key
        self._ids: dict[str, itertools.count[int]] = {}
        self._threads: list[threading.Thread] = []

    def new_id(self, prefix: str) -> str:
        """Return a moId that was never used before."""
        with self.changed:
            return f"{prefix}-{next(self._ids.setdefault(prefix, itertools.count(1)))}"

    def add(self, record: RecordT) -> RecordT:
        """Add a managed object."""
        with self.changed:
            self.records[record.moid] = record
            self.touch(record)
        return record

    def remove(self, *records: Record) -> None:
        """Remove managed objects."""
        with self.changed:
            for record in records:
                self.records.pop(record.moid, None)
            self.touch()

    def touch(self, *records: Record | None) -> None:
        """Say that objects changed, and wake whoever waits for changes."""
        with self.changed:
            for record in records:
                if record is not None:
                    record.revision = next(self._revisions)
            self.changed.notify_all()

    def find(self, ref: Any) -> Any:
        """Return the record of a reference, None when there is no such object."""
        record = None if ref is None else self.records.get(moid_of(ref))
        return record if record is not None and isinstance(record.ref, type(ref)) else None

    def get(self, ref: Any) -> Any:
        """Return the record of a reference, or raise ManagedObjectNotFound."""
        if (record := self.find(ref)) is None:
            text = f"The object '{ref}' has already been deleted or has not been completely created"
            raise vmodl.fault.ManagedObjectNotFound(obj=ref, msg=text)
        return record

    def of_type(self, kind: Any) -> Iterator[Any]:
        """Yield the records of a managed object type, oldest first."""
        return (record for record in list(self.records.values()) if isinstance(record.ref, kind))

    def read(self, record: Record, name: str) -> Any:
        """Return one property as pyVmomi types it, None when it is unset.

        Raises:
            vmodl.query.InvalidProperty: the object's type has no such property.
        """
        kind = type(record.ref)
        if (info := field_of(kind, name)) is None:
            raise vmodl.query.InvalidProperty(name=name)
        found = (DERIVED.get((ancestor, name)) for ancestor in kind.__mro__)
        derive = next(filter(None, found), None)
        value = complete(derive(self, record)) if derive else record.props.get(name)
        if value is None and not info.flags & F_OPTIONAL:
            value = blank(info.type)
        return typed(value, info.type)

    def name_of(self, ref: Any) -> str:
        """Return the name of an inventory object."""
        return str(self.read(self.get(ref), "name"))

    def now(self) -> datetime:
        """Return the time by this vCenter's clock."""
        return now() + timedelta(seconds=self.settings.clock_offset_s)

    @property
    def caller(self) -> str:
        """The user whose call, or whose task, this thread does."""
        session = SESSION.get()
        return str(session.info.userName) if session else self.settings.username

    def is_administrator(self, name: str) -> bool:
        """Tell whether a user is the one who may do everything."""
        return name.lower() == self.settings.username.lower()

    def log_event(self, kind: Any, vm: Record | None, message: str, **details: Any) -> None:
        """Append an event; its key is greater than every earlier one."""
        with self.changed:
            key = self.next_event_key
            self.next_event_key += 1
            event = kind(key=key, chainId=key, createdTime=self.now(), fullFormattedMessage=message)
            event.userName = self.caller
            if vm is not None:
                event.vm = vim.event.VmEventArgument(name=str(self.read(vm, "name")), vm=vm.ref)
            for name, value in details.items():
                setattr(event, name, value)
            self.events.append(complete(event))
            self.touch(self.records["EventManager"], *self.of_type(vim.event.EventHistoryCollector))

    def start_thread(self, work: Callable[[], None]) -> None:
        """Do work in a thread that ``close`` waits for."""
        thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
        with self.changed:
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
        thread.start()

    def close(self, grace_s: float = 60.0) -> None:
        """Cancel every wait and task, and return when their threads have ended."""
        self.closing.set()
        for task in list(self.tasks):
            task.cancelled.set()
        self.touch()
        deadline = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
