"""How a lab goes: access first, then every VM, then the question whether anything is left."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

from provisioner.errors import (
    LabctlError,
    NotOwnedError,
    NotProvedError,
    StoppedError,
    TaskFailedError,
    TeardownIncompleteError,
)
from provisioner.model.lab import GuestState, LabState
from provisioner.model.observed import DestroyOutcome, DestroyResult
from provisioner.ports import Flow
from provisioner.rules.receipt import (
    Residue,
    build_receipt,
    is_complete,
    list_doubts_of_sight,
    to_json,
)
from provisioner.rules.restored import refuse_when_restored
from provisioner.workflows.work import Toolbox, Work, build_target

REVOKE_S = 30.0


def teardown(flow: Flow, tools: Toolbox, lab_id: str, generation: int) -> None:
    """Remove a lab and keep a receipt of what vCenter answered afterwards.

    Raises TeardownIncompleteError when something is left, NotProvedError when too little could be
    seen: nothing is touched then, and there is no receipt. The lab is `residue`, and another run
    tries again.
    """
    work = Work(tools, "teardown", lab_id, generation)
    slots = [guest.identity.slot for guest in work.list_guests()]
    try:
        flow.run(work.step("sight", partial(_sight, work)))
        flow.run(*(work.step("revoke", partial(_revoke, work, slot), slot) for slot in slots))
        outcomes = [
            flow.run(work.step("destroy", partial(_destroy, work, slot), slot))[0] for slot in slots
        ]
        residue = [outcome for outcome in outcomes if outcome]
        (complete,) = flow.run(work.step("receipt", partial(_receipt, work, residue)))
    except StoppedError:
        raise
    except LabctlError as error:
        proved = isinstance(error, NotProvedError)
        _set_state(work, LabState.RESIDUE, error.what if proved else f"not proved: {error.what}")
        raise
    if not complete:
        note = "; ".join(f"{row['name']}: {row['why']}" for row in residue) or "not proved"
        _set_state(work, LabState.RESIDUE, note)
        raise TeardownIncompleteError(
            f"lab {lab_id} is not gone: {note}",
            hint=f"see the receipt (labctl teardown {lab_id} prints it), mend it and run it again",
        )
    tools.credentials.destroy_lab_keys(lab_id)
    _set_state(work, LabState.GONE, "")


def _set_state(work: Work, state: LabState, note: str) -> None:
    tools = work.tools
    tools.store.set_state(work.lab_id, work.generation, state, tools.clock.now(), note=note)


def _sight(work: Work) -> str:
    """Prove that labctl sees before it says what is gone.

    Raises NotProvedError with all doubts, RestoredStoreError.
    """
    refuse_when_restored(work.tools.store)
    sight = work.tools.hypervisor.check_sight()
    doubts = list_doubts_of_sight(work.get_lab(), sight)
    if doubts:
        raise NotProvedError(
            f"not proved, and nothing was touched: {'; '.join(doubts)}",
            hint=f"mend it, then run labctl teardown {work.lab_id} again; docs/runbook.md lists the"
            " vSphere role that labctl needs",
        )
    work.check_event_key(sight.event_key)
    return f"vCenter {sight.vcenter_uuid}, newest event {sight.event_key}"


def _revoke(work: Work, slot: str) -> str:
    """End the hire's access on a guest that answers; one that does not is destroyed anyway."""
    tools, guest, login = work.tools, work.get_guest(slot), work.get_lab().hire.login
    if not (guest.address and guest.host_key):
        return "never reached over SSH: there was no access"
    quoted = shlex.quote(login)
    command = (
        f"sudo -n sh -c 'id {quoted} >/dev/null 2>&1 || exit 0; "
        f"usermod --expiredate 1 {quoted} && {{ pkill -KILL -u {quoted}; true; }}'"
    )
    try:
        key = tools.credentials.get_lab_key(work.lab_id, work.generation)
        target = build_target(tools.site, guest, key.private_file)
        result = tools.shell.run(target, command, timeout_s=REVOKE_S)
    except LabctlError as error:
        return f"not revoked on the guest itself: {error.what}"
    if result.exit_status != 0:
        return f"not revoked on the guest itself: {result.stderr.strip()[-200:]}"
    return f"{login} can no longer log in, open sessions ended"


def _destroy(work: Work, slot: str) -> dict[str, Any] | None:
    """Destroy one guest's VM; return what stays as residue, or None."""
    guest = work.get_guest(slot)
    try:
        outcome = work.tools.hypervisor.destroy_vm(guest)
    except (NotOwnedError, TaskFailedError) as error:  # the other guests can still be destroyed
        outcome = DestroyOutcome(DestroyResult.RESIDUE, error.what)
    work.note("destroy", f"{guest.vm_name}: {outcome.result.value} {outcome.detail}".strip(), slot)
    if outcome.result is not DestroyResult.RESIDUE:
        work.tools.store.move_guest(guest.identity, GuestState.GONE)
        return None
    return {"name": guest.vm_name, "why": outcome.detail}


def _receipt(work: Work, residue: list[dict[str, Any]]) -> bool:
    """Ask vCenter for everything that could be left, and keep its answers."""
    tools, lab, guests = work.tools, work.get_lab(), work.list_guests()
    receipt = build_receipt(
        lab,
        asked_at=tools.clock.now(),
        sight=tools.hypervisor.check_sight(),
        evidence=tools.hypervisor.collect_evidence(lab.lab_id, guests),
        residue=tuple(Residue(name=row["name"], why=row["why"]) for row in residue),
    )
    tools.store.save_receipt(lab.lab_id, lab.generation, to_json(receipt))
    return is_complete(receipt)
