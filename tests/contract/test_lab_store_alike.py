"""Whatever happens, the store in memory and the one on SQLite say the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from provisioner.errors import LabctlError
from provisioner.model.lab import Desired, GuestIdentity, LabState, Progress, StepStatus
from provisioner.store import open_store
from tests.fakes.samples import NOW, make_audit, make_guests, make_lab
from tests.fakes.store import MemoryStore

LAB_IDS = st.sampled_from(["ana-mlops", "bo-mlops"])
GENERATIONS = st.integers(1, 3)
SLOTS = st.sampled_from(["workbench", "tracking"])
# What a text from a guest, from vCenter or from Ansible may hold, control characters included.
TEXTS = st.text(max_size=30)
TIMES = st.timedeltas(timedelta(), timedelta(days=400)).map(lambda since: NOW + since)


class Alike(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "labctl.db"
        self.memory = MemoryStore()
        self.sql = open_store(self.path)

    def teardown(self) -> None:
        self.sql.close()
        self.folder.cleanup()

    def both(self, call: Callable[[Any], Any]) -> None:
        answers = []
        for store in (self.memory, self.sql):
            try:
                answers.append(call(store))
            except LabctlError as error:
                answers.append(type(error))
        assert answers[0] == answers[1]

    @rule(lab_id=LAB_IDS, generation=GENERATIONS)
    def add_lab(self, lab_id: str, generation: int) -> None:
        lab = make_lab(lab_id, generation, "workbench", "tracking")
        self.both(lambda store: store.add_lab(lab, make_guests(lab), make_audit(lab_id)))

    @rule(
        lab_id=LAB_IDS,
        generation=GENERATIONS,
        state=st.sampled_from(LabState),
        at=TIMES,
        note=TEXTS,
    )
    def set_state(self, lab_id: str, generation: int, state: LabState, at: Any, note: str) -> None:
        self.both(lambda store: store.set_state(lab_id, generation, state, at, note=note))

    @rule(lab_id=LAB_IDS, generation=GENERATIONS, at=TIMES)
    def close_lab(self, lab_id: str, generation: int, at: Any) -> None:
        self.both(lambda store: store.set_state(lab_id, generation, LabState.TEARING_DOWN, at))
        self.both(lambda store: store.set_state(lab_id, generation, LabState.GONE, at))

    @rule(lab_id=LAB_IDS, generation=GENERATIONS, desired=st.sampled_from(Desired), detail=TEXTS)
    def set_desired(self, lab_id: str, generation: int, desired: Desired, detail: str) -> None:
        audit = make_audit(lab_id, detail)
        self.both(lambda store: store.set_desired(lab_id, generation, desired, audit))

    @rule(
        lab_id=LAB_IDS,
        generation=GENERATIONS,
        slot=SLOTS,
        hints=st.fixed_dictionaries(
            {},
            optional={"moref": TEXTS, "address": TEXTS, "birth_disks": st.lists(TEXTS).map(tuple)},
        ).filter(bool),
    )
    def update_guest(self, lab_id: str, generation: int, slot: str, hints: dict[str, Any]) -> None:
        uuid = f"{lab_id}-{generation}-{slot}-uuid"
        identity = GuestIdentity(lab_id, generation, slot, uuid)
        self.both(lambda store: store.update_guest(identity, **hints))

    @rule(
        lab_id=LAB_IDS,
        slot=SLOTS,
        status=st.sampled_from(StepStatus),
        text=TEXTS,
        at=TIMES,
        elapsed_s=st.none() | st.floats(0, 1e6),
    )
    def add_progress(self, lab_id: str, slot: str, **values: Any) -> None:
        if self.memory.find_lab(lab_id) is None:
            return
        row = Progress(lab_id, 1, workflow="provision", step="clone", slot=slot, **values)
        if not self.memory.list_guests(lab_id, 1):
            return  # a generation that was never recorded has no log
        self.both(lambda store: store.add_progress(row))

    @rule(lab_id=LAB_IDS, generation=GENERATIONS, receipt=TEXTS)
    def save_receipt(self, lab_id: str, generation: int, receipt: str) -> None:
        self.both(lambda store: store.save_receipt(lab_id, generation, receipt))

    @rule()
    def open_again(self) -> None:
        self.sql.close()
        self.sql = open_store(self.path)

    @invariant()
    def say_the_same(self) -> None:
        self.both(lambda store: store.list_labs())
        self.both(lambda store: store.list_labs(closed=True))
        self.both(lambda store: store.list_entries())
        self.both(lambda store: store.usual_s("provision", "clone"))
        for lab_id in ("ana-mlops", "bo-mlops"):
            self.both(partial(_ask_about, lab_id))

    @invariant()
    def times_are_utc(self) -> None:
        assert all(lab.created_at.tzinfo is UTC for lab in self.sql.list_labs(closed=True))


def _ask_about(lab_id: str, store: Any) -> tuple[object, ...]:
    return (
        store.find_lab(lab_id),
        store.find_receipt(lab_id),
        store.list_progress(lab_id, slot="tracking"),
        [store.list_guests(lab_id, generation) for generation in (1, 2, 3)],
    )


TestAlike = Alike.TestCase
TestAlike.settings = settings(
    max_examples=15,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
