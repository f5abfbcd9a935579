"""The PropertyCollector: retrieval by pages, and updates by versions.

A filter's updates are the difference between what it shows now and what the collector reported at
the version the client names, so nothing can be missed or invented between two calls.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.codec import fingerprint, moid_of
from provisioner.simulator.selection import Query, Reading, check_spec, read_object, select
from provisioner.simulator.world import DERIVED, Call, Record, Session, World, answers

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_SIZE = 100
"""Objects in one answer when the client sets no limit."""
Shown = dict[str, dict[str, str]]
"""What a filter reported: fingerprints by path, by moId."""


class Filter(Record):
    """One PropertyCollector.Filter and what it read last, kept by object revision."""

    def __init__(self, call: Call) -> None:
        args = call.args
        ref = Query.Filter(call.world.new_id("filter"))
        super().__init__(ref, call.session, spec=args.spec, partialUpdates=args.partialUpdates)
        self.collector: Collector = call.record
        self._read: dict[str, tuple[int, Reading, dict[str, str]]] = {}

    def _read_all(self, world: World) -> dict[str, tuple[int, Reading, dict[str, str]]]:
        spec, fresh = self.props["spec"], {}
        for record in select(world, spec):
            known = self._read.get(record.moid)
            if known is None or known[0] != record.revision:
                if (reading := read_object(world, record, spec.propSet)) is None:
                    continue
                prints = {path: fingerprint(value) for path, value in reading.values.items()}
                known = (record.revision, reading, prints)
            fresh[record.moid] = known
        self._read = fresh
        return fresh

    def updates(self, world: World, shown: Shown, limit: int) -> tuple[list[Any], Shown, bool]:
        """Return up to ``limit`` updates since ``shown``, what they show, and if more follow."""
        now, after = self._read_all(world), dict(shown)
        found: list[Any] = []
        gone = [moid for moid in shown if moid not in now]
        changed = [moid for moid, (_, _, prints) in now.items() if shown.get(moid) != prints]
        for moid in gone[:limit]:
            found.append(Query.ObjectUpdate(kind="leave", obj=self.collector.refs[moid]))
            del after[moid]
        for moid in changed[: limit - len(found)]:
            _, reading, after[moid] = now[moid]
            found.append(_object_update(reading, shown.get(moid), after[moid]))
        return found, after, len(gone) + len(changed) > limit


def _object_update(reading: Reading, before: dict[str, str] | None, now: dict[str, str]) -> Any:
    known = before or {}
    paths = [path for path in {**known, **now} if known.get(path) != now.get(path)]
    changes = [Query.Change(name=one, op="assign", val=reading.values.get(one)) for one in paths]
    kind = "enter" if before is None else "modify"
    missing = reading.missing
    return Query.ObjectUpdate(kind=kind, obj=reading.ref, changeSet=changes, missingSet=missing)


class Collector(Record):
    """One PropertyCollector of one session."""

    def __init__(self, moid: str, session: Session | None) -> None:
        super().__init__(Query(moid), session)
        self.filters: dict[str, Filter] = {}
        self.pages: dict[str, list[Any]] = {}
        self.cancels = 0
        self.refs: dict[str, Any] = {}
        """References of everything reported, for the update that says an object left."""
        self._history: dict[str, dict[str, Shown]] = {}
        self._last_version = 0

    def _collect(self, world: World, version: str, limit: int) -> Any | None:
        base = self._history.get(version, {})
        after: dict[str, Shown] = {}
        sets, left, truncated = [], limit, False
        for moid, one in self.filters.items():
            updates, after[moid], more = one.updates(world, base.get(moid, {}), left)
            left, truncated = left - len(updates), truncated or more
            if updates:
                sets.append(Query.FilterUpdate(filter=one.ref, objectSet=updates))
                self.refs.update({moid_of(item.obj): item.obj for item in updates})
        if not sets:
            return None
        self._last_version += 1
        # The named version stays valid, so that a client whose answer got lost can ask again.
        kept = {version: base} if version in self._history else {}
        new_version = str(self._last_version)
        self._history = {**kept, new_version: after}
        return Query.UpdateSet(version=new_version, filterSet=sets, truncated=truncated or None)

    def wait(self, world: World, version: str | None, max_wait_s: float | None, limit: int) -> Any:
        """Return the next UpdateSet, None when nothing changed in time. Call it under the lock.

        Raises:
            vmodl.query.InvalidCollectorVersion: a version that was never given or is too old.
            vmodl.fault.RequestCanceled: CancelWaitForUpdates, or the simulator stops.
            vim.fault.NotAuthenticated: the session ended meanwhile.
        """
        if version and version not in self._history:
            raise vmodl.query.InvalidCollectorVersion
        deadline = None if max_wait_s is None else time.monotonic() + max_wait_s
        cancels = self.cancels
        while True:
            if self.session is None or not self.session.open:
                raise vim.fault.NotAuthenticated(object=self.ref, privilegeId="System.View")
            if self.cancels != cancels or world.closing.is_set():
                raise vmodl.fault.RequestCanceled
            if (update := self._collect(world, version or "", limit)) is not None:
                return update
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            world.changed.wait(left)


def _contents(call: Call) -> list[Any]:
    """Return the ObjectContent of everything the call's filter specs select."""
    contents = []
    for spec in call.args.specSet:
        check_spec(call.world, spec)
        for record in select(call.world, spec):
            if reading := read_object(call.world, record, spec.propSet):
                pairs = reading.values.items()
                props = [vmodl.DynamicProperty(name=path, val=value) for path, value in pairs]
                content = Query.ObjectContent(obj=reading.ref, propSet=props)
                content.missingSet = reading.missing
                contents.append(content)
    return contents


@answers(Query, "RetrieveProperties")
def _retrieve(call: Call) -> Any:
    return _contents(call)


def _page(call: Call, contents: list[Any], size: int) -> Any | None:
    token = None
    if len(contents) > size:
        token = call.world.new_id("page")
        call.record.pages[token] = contents[size:]
    return Query.RetrieveResult(token=token, objects=contents[:size]) if contents else None


@answers(Query, "RetrievePropertiesEx")
def _retrieve_page(call: Call) -> Any:
    return _page(call, _contents(call), _positive(call.args.options, "maxObjects") or PAGE_SIZE)


def _rest(call: Call) -> list[Any]:
    """Take the rest of a retrieval: each token is good once."""
    contents = call.record.pages.pop(call.args.token, None)
    if contents is None:
        raise vmodl.fault.InvalidArgument(invalidProperty="token")
    return list(contents)


@answers(Query, "ContinueRetrievePropertiesEx")
def _retrieve_next_page(call: Call) -> Any:
    return _page(call, _rest(call), PAGE_SIZE)


@answers(Query, "CancelRetrievePropertiesEx")
def _cancel_retrieve(call: Call) -> None:
    _rest(call)


@answers(Query, "CreateFilter")
def _create_filter(call: Call) -> Any:
    check_spec(call.world, call.args.spec)
    one = Filter(call)
    call.record.filters[one.moid] = one
    return call.world.add(one).ref


@answers(Query.Filter, "DestroyPropertyFilter")
def _destroy_filter(call: Call) -> None:
    call.record.collector.filters.pop(call.record.moid, None)
    call.world.remove(call.record)


@answers(Query, "CreatePropertyCollector")
def _create_collector(call: Call) -> Any:
    return call.world.add(Collector(call.world.new_id("collector"), call.session)).ref


@answers(Query, "DestroyPropertyCollector")
def _destroy_collector(call: Call) -> None:
    call.record.cancels += 1
    call.world.remove(call.record, *call.record.filters.values())


def _positive(options: Any, name: str, least: int = 1) -> Any:
    """Return an option that must not be too small, None when it is unset."""
    value = getattr(options, name, None)
    if value is not None and value < least:
        raise vmodl.fault.InvalidArgument(invalidProperty=f"options.{name}")
    return value


def _waiting(max_wait_s: Callable[[Any], float | None]) -> Callable[[Call], Any]:
    def wait(call: Call) -> Any:
        options = getattr(call.args, "options", None)
        limit = _positive(options, "maxObjectUpdates") or PAGE_SIZE
        return call.record.wait(call.world, call.args.version, max_wait_s(options), limit)

    return wait


answers(Query, "WaitForUpdatesEx")(_waiting(lambda it: _positive(it, "maxWaitSeconds", 0)))
answers(Query, "WaitForUpdates")(_waiting(lambda _: None))
answers(Query, "CheckForUpdates")(_waiting(lambda _: 0))


@answers(Query, "CancelWaitForUpdates")
def _cancel_wait(call: Call) -> None:
    call.record.cancels += 1
    call.world.touch()


DERIVED[Query, "filter"] = lambda _, collector: [one.ref for one in collector.filters.values()]
