"""Asking vCenter for everything that could be left of a lab: each answer is a row of a receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from pyVmomi import vim

from provisioner.errors import LabctlError, VsphereUnavailableError
from provisioner.model.lab import GuestRecord
from provisioner.model.observed import Evidence, Ownership
from provisioner.ports import Clock
from provisioner.vsphere.files import Files
from provisioner.vsphere.lookup import Lookup
from provisioner.vsphere.machines import Machine, Machines
from provisioner.vsphere.properties import build_spec
from provisioner.vsphere.session import Session
from provisioner.vsphere.sight import find_blind_spot
from provisioner.vsphere.waiter import ENDED

Answer = tuple[str, bool | None]
"""What vCenter answered, in plain words, and whether that means "gone" (None: undecided)."""


@dataclass(frozen=True)
class _Question:
    kind: str
    name: str
    ask: Callable[[], Answer]
    moref: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class Asking:
    """Asks about what may be left. An answer that vCenter refuses is no answer: `gone` is None."""

    session: Session
    lookup: Lookup
    machines: Machines
    files: Files
    clock: Clock

    def collect(self, lab_id: str, guests: Iterable[GuestRecord]) -> tuple[Evidence, ...]:
        """Ask about each guest's UUID, reference, name, disks and task, and about lab's marks.

        Raises:
            VsphereUnavailableError: vCenter does not answer now: nothing is said until it does.
        """
        questions = [question for guest in guests for question in self._list_questions(guest)]
        questions.append(_Question("mark", lab_id, partial(self._ask_marks, lab_id)))
        try:
            blind_spot = find_blind_spot(self.session, self.lookup.get_place(anew=True))
        except VsphereUnavailableError:
            raise
        except LabctlError as error:
            blind_spot = f"what this account sees could not be asked: {error.what}"
        return tuple(self._answer(question, blind_spot) for question in questions)

    def _answer(self, question: _Question, blind_spot: str) -> Evidence:
        asked_at = self.clock.now()
        gone: bool | None
        try:
            answer, gone = question.ask()
        except VsphereUnavailableError:
            raise
        except LabctlError as error:
            answer, gone = f"not answered: {error.what}", None
        if gone and blind_spot:
            answer, gone = f"{answer}; that proves nothing: {blind_spot}", None
        return Evidence(
            kind=question.kind,
            name=question.name,
            moref=question.moref,
            uuid=question.uuid,
            asked_at=asked_at,
            answer=answer,
            gone=gone,
        )

    def _list_questions(self, guest: GuestRecord) -> Iterator[_Question]:
        name, moref, uuid = guest.vm_name, guest.moref, guest.identity.instance_uuid
        yield _Question("uuid", name, partial(self._ask_uuid, uuid), moref, uuid)
        if moref:
            yield _Question("moref", name, partial(self._ask_moref, moref), moref, uuid)
        yield _Question("name", name, partial(self._ask_name, guest), moref, uuid)
        for path in guest.birth_disks:
            yield _Question("disk", path, partial(self._ask_file, path), moref, uuid)
        if guest.pin is not None and not guest.birth_disks:  # it may have been cloned all the same
            for store in self.lookup.stores:
                ask = partial(self._ask_folder, store, name)
                yield _Question("folder", f"[{store}] {name}", ask, moref, uuid)
        if guest.vim_task:
            yield _Question("task", guest.vim_task, partial(self._ask_task, guest.vim_task))

    def _ask_uuid(self, uuid: str) -> Answer:
        ref = self.session.read(
            f"look up instance UUID {uuid}",
            lambda content: content.searchIndex.FindByUuid(None, uuid, True, True),
        )
        if ref is None:
            return "no VM has this instance UUID", True
        return f"{_name(self.machines.get(ref))} has this instance UUID", False

    def _ask_moref(self, moref: str) -> Answer:
        spec = build_spec([vim.VirtualMachine(moref)], {vim.VirtualMachine: ["name"]})
        readings = self.session.retrieve(f"look up {moref}", spec)
        if not readings:
            return "there is no such object any more", True
        return f"it is there, named {readings[0].values.get('name', 'unreadably')}", False

    def _ask_name(self, guest: GuestRecord) -> Answer:
        folder = self.lookup.get_place().get("placement", "folder")
        ref = self.session.read(
            "look into the labs' folder",
            lambda content: content.searchIndex.FindChild(folder, guest.vm_name),
        )
        if ref is None:
            return "the labs' folder holds nothing of this name", True
        if not isinstance(ref, vim.VirtualMachine):
            return "the labs' folder holds something else of this name", True
        machine = self.machines.get(ref)
        ours = machine.vm.ownership is Ownership.OURS
        if ours and machine.vm.identity == guest.identity:
            return f"{_name(machine)} stands in the labs' folder", False
        return f"{_name(machine)} has this name, but is another VM; it was not touched", True

    def _ask_file(self, path: str) -> Answer:
        store, _, file = path.removeprefix("[").partition("] ")
        folder, _, name = file.rpartition("/")
        names = self.files.find_names(store, folder, name)
        if names is None:
            return "the datastore has no such folder", True
        if name in names:
            return "the file is there", False
        return "the folder holds no such file", True

    def _ask_folder(self, store: str, folder: str) -> Answer:
        names = self.files.find_names(store, folder, "*")
        if names is None:
            return "the datastore has no such folder", True
        if not names:
            return "the folder is empty", True
        return f"it holds {', '.join(sorted(names))}, and nothing tells whose files they are", None

    def _ask_task(self, key: str) -> Answer:
        spec = build_spec([vim.Task(key)], {vim.Task: ["info.state"]})
        readings = self.session.retrieve(f"look up {key}", spec)
        if not readings:
            return "vCenter has forgotten this task: it ended long ago", True
        state = readings[0].values.get("info.state")
        return f"the task's state is {state}", state in ENDED

    def _ask_marks(self, lab_id: str) -> Answer:
        marked = [
            machine
            for machine in self.machines.list_marked()
            if machine.vm.identity is not None and machine.vm.identity.lab_id == lab_id
        ]
        ours = [_name(one) for one in marked if one.vm.ownership is Ownership.OURS]
        if ours:
            return f"this lab's genuine mark is on {', '.join(ours)}", False
        copies = [_name(one) for one in marked if one.vm.ownership is Ownership.COPY]
        aside = f"; a copy by hand, which is not labctl's: {', '.join(copies)}" if copies else ""
        return f"no VM of this vCenter carries this lab's genuine mark{aside}", True


def _name(machine: Machine) -> str:
    return f"{machine.vm.name} ({machine.vm.moref})"
