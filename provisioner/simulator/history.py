"""What happened: which events and tasks a filter means, and collectors that page through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyVmomi import vim, vmodl

from provisioner.simulator.permissions import is_visible, list_above
from provisioner.simulator.world import DERIVED, METHODS, Call, Record, World, answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Manager = vim.event.EventManager
PAGE_SIZE = 10
"""Items on a collector's latest page until the client sets that."""
NOT_SIMULATED = (
    *("alarm", "scheduledTask", "userName", "tag", "category"),
    *("activationId", "parentTaskKey", "rootTaskKey"),
)
TIMES = {"queuedTime": "queueTime", "startedTime": "startTime", "completedTime": "completeTime"}


def _is_about(world: World, wanted: Any, ref: Any) -> bool:
    """Tell whether an object is the one a filter names or, as that asks, one below it."""
    if wanted is None:
        return True
    record, above = world.find(ref), [world.records["group-d1"].ref]
    above += [one.ref for one in list_above(world, record)] if record is not None else []
    meant = {"self": [ref], "children": above, "all": [ref, *above]}
    return wanted.entity in meant[wanted.recursion]


def _is_within(wanted: Any, at: Any) -> bool:
    if wanted is None:
        return True
    begin, end = wanted.beginTime, wanted.endTime
    return at is not None and (begin is None or at >= begin) and (end is None or at <= end)


def _is_hidden(world: World, ref: Any) -> bool:
    record = world.find(ref)
    return record is not None and not is_visible(world, record)


def _list_events(world: World, wanted: Any) -> Iterator[Any]:
    """Yield the events that a filter means, oldest first."""
    names = {name.rpartition(".")[2] for name in wanted.eventTypeId}
    for event in world.events:
        vm = event.vm.vm if event.vm else None
        if (
            (not wanted.type or isinstance(event, tuple(wanted.type)))
            and (not names or type(event).__name__.rpartition(".")[2] in names)
            and wanted.eventChainId in (None, event.chainId)
            and _is_within(wanted.time, event.createdTime)
            and _is_about(world, wanted.entity, vm)
            and not _is_hidden(world, vm)
        ):
            yield event


def _list_tasks(world: World, wanted: Any) -> Iterator[Any]:
    """Yield the tasks that a filter means, oldest first."""
    for info in (run.info for run in world.tasks if run.moid in world.records):
        if (
            (not wanted.state or info.state in wanted.state)
            and (not wanted.eventChainId or info.eventChainId in wanted.eventChainId)
            and (wanted.time is None or _is_within(wanted.time, _time_of(info, wanted.time)))
            and _is_about(world, wanted.entity, info.entity)
            and not _is_hidden(world, info.entity)
        ):
            yield info


def _time_of(info: Any, wanted: Any) -> Any:
    return getattr(info, TIMES[wanted.timeType])


def _check(wanted: Any) -> Any:
    """Return a filter, unless it asks for what would be ignored."""
    for name in NOT_SIMULATED:
        if getattr(wanted, name, None):
            raise vmodl.fault.NotSupported(msg=f"filter.{name} is not simulated")
    return wanted


@answers(Manager, "QueryEvents")
def _query_events(call: Call) -> Any:
    return list(_list_events(call.world, _check(call.args.filter)))


def _positive(limit: int) -> int:
    if limit < 1:
        raise vmodl.fault.InvalidArgument(invalidProperty="maxCount")
    return limit


class History(Record):
    """A collector: a filter, and what the client has read by it."""

    def __init__(self, call: Call, kind: Any, search: Callable[[World, Any], Any]) -> None:
        ref, self.wanted = kind(call.world.new_id("collector")), _check(call.args.filter)
        super().__init__(ref, call.session, filter=self.wanted)
        self.search, self.page_size = search, PAGE_SIZE
        self.read: set[Any] = set()

    def read_next(self, world: World, limit: int) -> Any:
        """Return the oldest items that were not read yet."""
        found = self.search(world, self.wanted)
        page = [one for one in found if one.key not in self.read][: _positive(limit)]
        self.read.update(one.key for one in page)
        return page

    def latest_page(self, world: World) -> Any:
        """Return the newest items, the newest first."""
        return list(self.search(world, self.wanted))[: -self.page_size - 1 : -1]


@answers(Manager, "CreateCollectorForEvents")
def _collect_events(call: Call) -> Any:
    return call.world.add(History(call, vim.event.EventHistoryCollector, _list_events)).ref


@answers(vim.TaskManager, "CreateCollectorForTasks")
def _collect_tasks(call: Call) -> Any:
    return call.world.add(History(call, vim.TaskHistoryCollector, _list_tasks)).ref


@answers(vim.HistoryCollector, "SetCollectorPageSize")
def _set_page_size(call: Call) -> None:
    call.record.page_size = _positive(call.args.maxCount)
    call.world.touch(call.record)


def _description(world: World, _record: Record) -> Any:
    """Describe the kinds of events that there were: nothing here goes wrong by itself."""
    kinds = dict.fromkeys(type(event) for event in world.events)
    info = [vim.event.EventDescription.EventDetail(key=kind, category="info") for kind in kinds]
    return vim.event.EventDescription(eventInfo=info)


METHODS[vim.HistoryCollector, "RewindCollector"] = lambda call: call.record.read.clear()
METHODS[vim.HistoryCollector, "DestroyCollector"] = lambda call: call.world.remove(call.record)
DERIVED[Manager, "description"] = _description
DERIVED[Manager, "latestEvent"] = lambda world, _: [None, *world.events][-1]
for _kind, _read in (
    (vim.event.EventHistoryCollector, "ReadNextEvents"),
    (vim.TaskHistoryCollector, "ReadNextTasks"),
):
    METHODS[_kind, _read] = lambda call: call.record.read_next(call.world, call.args.maxCount)
    DERIVED[_kind, "latestPage"] = lambda world, record: record.latest_page(world)
