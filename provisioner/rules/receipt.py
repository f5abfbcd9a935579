"""The receipt of a teardown: what vCenter answered, object by object, and what that proves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from provisioner.errors import StoreError
from provisioner.model.lab import Lab
from provisioner.model.observed import Evidence, Sight
from provisioner.rules.plain_text import build_plain_text

NOT_MANAGED = (
    "DNS and DHCP entries that IT made for a guest",
    "backups and replicas of the VMs, and snapshots of the storage beneath them",
    "the datastore's free blocks: they hold the old bytes until they are written again",
    "logs outside of labctl: vCenter's events, jump host, proxies, mirrors, the hire's computer",
)
_GONE_WORDS = {True: "gone", False: "LEFT", None: "UNKNOWN"}


@dataclass(frozen=True)
class Residue:
    """Something that stays: its name, why, and what IT can do about it."""

    name: str
    why: str
    remedy: str = "detach or remove in vCenter what is not the lab's, then tear down again"


@dataclass(frozen=True)
class Receipt:
    """What one teardown of one generation of a lab can prove.

    `vcenter_uuid` and `event_key` are those of the vCenter on which the lab was made; `sight`
    is what was seen when the questions of `evidence` were asked.
    """

    lab_id: str
    generation: int
    hire_email: str
    site: str
    vcenter_uuid: str
    event_key: int
    asked_at: datetime
    sight: Sight
    evidence: tuple[Evidence, ...]
    residue: tuple[Residue, ...]
    not_managed: tuple[str, ...] = NOT_MANAGED


_ADAPTER = TypeAdapter(Receipt)


def build_receipt(
    lab: Lab,
    *,
    asked_at: datetime,
    sight: Sight,
    evidence: tuple[Evidence, ...],
    residue: tuple[Residue, ...],
) -> Receipt:
    """Put together what was asked and answered about a lab."""
    return Receipt(
        lab_id=lab.lab_id,
        generation=lab.generation,
        hire_email=lab.hire.email,
        site=lab.site,
        vcenter_uuid=lab.vcenter_uuid,
        event_key=lab.event_key,
        asked_at=asked_at,
        sight=sight,
        evidence=evidence,
        residue=residue,
    )


def list_doubts(receipt: Receipt) -> tuple[str, ...]:
    """List every reason why the receipt does not prove that nothing is left."""
    return tuple(_find_doubts(receipt))


def is_complete(receipt: Receipt) -> bool:
    """Tell whether the receipt proves that nothing is left.

    That needs proof of sight as well as answers: an empty answer of a vCenter that is another
    one, was rolled back, or hides objects from us means nothing.
    """
    return not list_doubts(receipt)


def list_doubts_of_sight(origin: Lab | Receipt, sight: Sight) -> tuple[str, ...]:
    """List every reason why an empty answer about a lab would mean nothing."""
    return tuple(_find_doubts_of_sight(origin, sight))


def _find_doubts(receipt: Receipt) -> Iterator[str]:
    yield from _find_doubts_of_sight(receipt, receipt.sight)
    if not receipt.evidence:
        yield "vCenter was asked about nothing"
    for row in receipt.evidence:
        if row.gone is not True:
            yield f"{row.kind} {row.name}: {row.answer}"
    for residue in receipt.residue:
        yield f"{residue.name}: {residue.why}"


def _find_doubts_of_sight(origin: Lab | Receipt, sight: Sight) -> Iterator[str]:
    if sight.vcenter_uuid != origin.vcenter_uuid:
        yield (
            f"another vCenter answered: {sight.vcenter_uuid or 'without a UUID'}, but the lab "
            f"was made on {origin.vcenter_uuid}"
        )
    if sight.event_key < origin.event_key:
        yield (
            f"vCenter was rolled back: its newest event is {sight.event_key}, "
            f"but it had {origin.event_key} when the lab was worked on"
        )
    for privilege in sight.missing_privileges:
        yield f"not allowed to see everything: {privilege} is missing"
    for name in sight.missing_objects:
        yield f"not everything is visible: {name}"


def to_json(receipt: Receipt) -> str:
    """Write a receipt as JSON, with `complete` and `doubts` for those who only read that."""
    document = {
        **_ADAPTER.dump_python(receipt, mode="json"),
        "complete": is_complete(receipt),
        "doubts": list_doubts(receipt),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def from_json(text: str) -> Receipt:
    """Read a receipt; `complete` is not believed but decided again. Raises StoreError."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"the receipt cannot be read: {error.error_count()} of its values are missing or wrong",
            hint="use the labctl that wrote it",
        ) from error


def render_text(receipt: Receipt) -> str:
    """Write a receipt for people: a heading, what was asked and answered, what that proves."""
    doubts = list_doubts(receipt)
    verdict = "NOT COMPLETE" if doubts else "COMPLETE: vCenter shows nothing of this lab any more"
    head = _align(
        (
            ("Receipt", f"lab {receipt.lab_id}, generation {receipt.generation}"),
            ("for", receipt.hire_email),
            ("site", f"{receipt.site}, vCenter {receipt.vcenter_uuid}"),
            ("asked", _say_time(receipt.asked_at)),
            ("result", verdict),
        )
    )
    rows = [
        (
            _GONE_WORDS[row.gone],
            row.kind,
            row.name,
            row.moref or "-",
            row.uuid or "-",
            f"{row.asked_at:%H:%M:%S}",
            row.answer,
        )
        for row in receipt.evidence
    ]
    title = ("", "object", "name", "moref", "uuid", "asked", "vCenter answered")
    residue = [
        line for row in receipt.residue for line in (f"{row.name}: {row.why}", f"  -> {row.remedy}")
    ]
    return "\n\n".join(
        (
            "\n".join(head),
            *_section("Not proved, because", doubts),
            *_section("Left, and what to do", residue, bullet=""),
            *_section("What vCenter was asked", _align((title, *rows)) if rows else (), bullet=""),
            *_section("Not managed by labctl, so not part of this receipt", receipt.not_managed),
        )
    )


def _section(title: str, lines: Sequence[str], *, bullet: str = "- ") -> Iterator[str]:
    if lines:
        yield "\n".join((title, *(f"  {bullet}{_one_line(line)}" for line in lines)))


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _one_line(text: str) -> str:
    """A name or an answer from outside can neither paint the terminal nor fake another row."""
    return build_plain_text(text).replace("\n", " ").replace("\t", " ")


def _say_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
