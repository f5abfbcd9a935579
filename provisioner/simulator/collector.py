"""The PropertyCollector: retrieval by pages, and updates by versions.

A filter's updates are the difference between what it shows now and what the collector reported at
the version the client names, so nothing can be missed or invented between two calls.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.calls import Call, answers
from provisioner.simulator.codec import fingerprint
from provisioner.simulator.selection import Query, Reading, check_spec, read_object, select
from provisioner.simulator.world import Record, World, derives

if TYPE_CHECKING:
    from provisioner.simulator.world import Session

PAGE_SIZE = 100
"""Objects in one answer when the client sets no limit."""

Shown = dict[str, dict[str, str]]
"""What a filter reported: fingerprints by path, by moId."""


class Filter(Record):
    """One PropertyCollector.Filter and what it read last, kept per object revision."""

    def __init__(self, world: World, spec: Any, collector: Collector, *, partial: bool) -> None:
        moid = world.new_id("filter")
        super().__init__(Query.Filter(moid), spec=spec, partialUpdates=partial)
        self.moid = moid
        self.collector = collector
        self.session = collector.session
        self._read: dict[str, tuple[int, Reading | None, dict[str, str]]] = {}

    def _read_all(self, world: World) -> dict[str, tuple[int, Reading | None, dict[str, str]]]:
        spec, fresh = self.props["spec"], {}
        for record in select(world, spec):
            moid = record.ref._GetMoId()  # noqa: SLF001 - pyVmomi's public accessor
            known = self._read.get(moid)
            if known is None or known[0] != record.revision:
                reading = read_object(world, record, spec.propSet)
                values = reading.values if reading else {}
                prints = {path: fingerprint(value) for path, value in values.items()}
                known = (record.revision, reading, prints)
            if known[1] is not None:
                fresh[moid] = known
        self._read = fresh
        return fresh

    def updates(self, world: World, shown: Shown, limit: int) -> tuple[list[Any], Shown, bool]:
        """Return at most ``limit`` updates since ``shown``, what is shown then, and "there is more"."""
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


def _object_update(reading: Any, before: dict[str, str] | None, prints: dict[str, str]) -> Any:
    paths = [path for path in prints if before is None or before.get(path) != prints[path]]
    gone = [path for path in before or () if path not in prints]
    changes = [Query.Change(name=path, op="assign", val=reading.values[path]) for path in paths]
    changes += [Query.Change(name=path, op="assign") for path in gone]
    kind = "enter" if before is None else "modify"
    return Query.ObjectUpdate(
        kind=kind, obj=reading.ref, changeSet=changes, missingSet=reading.missing
    )


class Collector(Record):
    """One PropertyCollector of one session."""

    def __init__(self, moid: str, session: Session | None) -> None:
        super().__init__(Query(moid))
        self.session = session
        self.filters: dict[str, Filter] = {}
        self.pages: dict[str, list[Any]] = {}
        self.refs: dict[str, Any] = {}
        """References of everything reported, for the update that says an object left."""
        self._history: dict[str, dict[str, Shown]] = {}
        self._last_version = 0
        self._cancels = 0

    def cancel(self) -> None:
        """End the wait that is going on."""
        self._cancels += 1

    def _collect(self, world: World, version: str, limit: int) -> Any | None:
        base = self._history.get(version, {})
        after: dict[str, Shown] = {}
        sets, left, truncated = [], limit, False
        for moid, one in self.filters.items():
            updates, after[moid], more = one.updates(world, base.get(moid, {}), left)
            left -= len(updates)
            truncated = truncated or more
            if updates:
                sets.append(Query.FilterUpdate(filter=one.ref, objectSet=updates))
                self.refs.update({item.obj._GetMoId(): item.obj for item in updates})  # noqa: SLF001 - pyVmomi's public accessor
        if not sets:
            return None
        self._last_version += 1
        # The named version stays valid, so that a client whose answer got lost can ask again.
        kept = {version: base} if version in self._history else {}
        self._history = {**kept, str(self._last_version): after}
        return Query.UpdateSet(
            version=str(self._last_version), filterSet=sets, truncated=truncated or None
        )

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
        cancels = self._cancels
        while True:
            if self.session is None or not self.session.open:
                raise vim.fault.NotAuthenticated(object=self.ref, privilegeId="System.View")
            if self._cancels != cancels or world.closing.is_set():
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
            reading = read_object(call.world, record, spec.propSet)
            if reading is not None:
                props = [
                    vmodl.DynamicProperty(name=path, val=value)
                    for path, value in reading.values.items()
                ]
                contents.append(
                    Query.ObjectContent(obj=reading.ref, propSet=props, missingSet=reading.missing)
                )
    return contents


@answers(Query, "RetrieveProperties")
def retrieve(call: Call) -> Any:
    """Answer everything at once."""
    return Query.ObjectContent.Array(_contents(call))


def _page(call: Call, contents: list[Any], size: int) -> Any | None:
    if not contents:
        return None
    token = None
    if len(contents) > size:
        token = call.world.new_id("page")
        call.record.pages[token] = contents[size:]
    return Query.RetrieveResult(token=token, objects=contents[:size])


@answers(Query, "RetrievePropertiesEx")
def retrieve_page(call: Call) -> Any:
    """Answer the first page; unset when nothing is selected."""
    size = call.args.options.maxObjects or PAGE_SIZE
    if size < 0:
        raise vmodl.fault.InvalidArgument(invalidProperty="options.maxObjects")
    return _page(call, _contents(call), size)


@answers(Query, "ContinueRetrievePropertiesEx")
def retrieve_next_page(call: Call) -> Any:
    """Answer the next page of a token; each token is good once."""
    contents = call.record.pages.pop(call.args.token, None)
    if contents is None:
        raise vmodl.fault.InvalidArgument(invalidProperty="token")
    return _page(call, contents, PAGE_SIZE)


@answers(Query, "CancelRetrievePropertiesEx")
def cancel_retrieve(call: Call) -> None:
    """Forget the rest of a retrieval."""
    if call.record.pages.pop(call.args.token, None) is None:
        raise vmodl.fault.InvalidArgument(invalidProperty="token")


@answers(Query, "CreateFilter")
def create_filter(call: Call) -> Any:
    """Add a filter; a wait that is going on reports it at once."""
    check_spec(call.world, call.args.spec)
    collector: Collector = call.record
    one = Filter(call.world, call.args.spec, collector, partial=call.args.partialUpdates)
    collector.filters[one.moid] = one
    return call.world.add(one).ref


@answers(Query.Filter, "DestroyPropertyFilter")
def destroy_filter(call: Call) -> None:
    """Remove a filter."""
    call.record.collector.filters.pop(call.record.moid, None)
    call.world.remove(call.record)


@answers(Query, "CreatePropertyCollector")
def create_collector(call: Call) -> Any:
    """Add a collector of the session's own."""
    return call.world.add(Collector(call.world.new_id("collector"), call.session)).ref


@answers(Query, "DestroyPropertyCollector")
def destroy_collector(call: Call) -> None:
    """Remove a collector and its filters."""
    call.record.cancel()
    call.world.remove(call.record, *call.record.filters.values())


@answers(Query, "WaitForUpdatesEx")
def wait_for_updates_ex(call: Call) -> Any:
    """Wait for changes, at most options.maxWaitSeconds, at most options.maxObjectUpdates of them."""
    options = call.args.options or Query.WaitOptions()
    for name in ("maxWaitSeconds", "maxObjectUpdates"):
        value = getattr(options, name)
        if value is not None and value < (1 if name == "maxObjectUpdates" else 0):
            raise vmodl.fault.InvalidArgument(invalidProperty=f"options.{name}")
    limit = options.maxObjectUpdates or PAGE_SIZE
    return call.record.wait(call.world, call.args.version, options.maxWaitSeconds, limit)


@answers(Query, "WaitForUpdates")
def wait_for_updates(call: Call) -> Any:
    """Wait for changes, as long as it takes."""
    return call.record.wait(call.world, call.args.version, None, PAGE_SIZE)


@answers(Query, "CheckForUpdates")
def check_for_updates(call: Call) -> Any:
    """Answer the changes there are, unset when there are none."""
    return call.record.wait(call.world, call.args.version, 0, PAGE_SIZE)


@answers(Query, "CancelWaitForUpdates")
def cancel_wait(call: Call) -> None:
    """End the wait that is going on; without one nothing happens."""
    call.record.cancel()
    call.world.touch()


@derives(Query, "filter")
def _filters(_world: World, collector: Collector) -> list[Any]:
    return [one.ref for one in collector.filters.values()]
