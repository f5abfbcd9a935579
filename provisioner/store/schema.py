"""The tables of the store. This module alone says what is kept, and how."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Enum,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from provisioner.model.lab import Desired, GuestState, LabState, StepStatus, WorkStatus

SCHEMA_VERSION = 2


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as UTC without its zone and given back as aware UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive time: nobody knows which moment it means."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone cannot be stored: {value}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back aware UTC."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


def _word(name: str, kind: type[StrEnum]) -> Column[StrEnum]:
    def values(words: type[StrEnum]) -> list[str]:
        return [word.value for word in words]

    # Plain text in the table: a new word needs no change of it.
    words = Enum(kind, values_callable=values, native_enum=False, length=40)
    return Column(name, words, nullable=False)


def _lab_key() -> tuple[Column[str], Column[int]]:
    return (
        Column("lab_id", String(80), primary_key=True),
        Column("generation", Integer, primary_key=True),
    )


def _of_lab() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["lab_id", "generation"], ["labs.lab_id", "labs.generation"])


schema_versions = Table(
    "schema_versions", metadata, Column("version", Integer, primary_key=True, autoincrement=False)
)

labs = Table(
    "labs",
    metadata,
    *_lab_key(),
    _text("site"),
    _text("vcenter_uuid"),
    Column("event_key", BigInteger, nullable=False),
    Column("blueprint", JSON, nullable=False),  # as it was then: editing labs/ changes no lab
    _text("hire_email"),
    _text("hire_login"),
    _text("hire_key"),
    Column("lease_ends_at", UtcDateTime, nullable=False),
    Column("lease_grace_s", Float, nullable=False),
    _word("desired", Desired),
    _word("state", LabState),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ready_at", UtcDateTime),
    Column("closed_at", UtcDateTime),
    _text("note"),
)

guests = Table(
    "guests",
    metadata,
    *_lab_key(),
    Column("slot", String(40), primary_key=True),
    Column("place", Integer, nullable=False),  # in the blueprint's order
    _text("instance_uuid", unique=True),
    _text("vm_name"),
    _text("nonce"),
    _word("state", GuestState),
    Column("pin", JSON),
    _text("vim_task"),
    _text("moref"),
    _text("mac"),
    _text("address"),
    _text("host_key"),
    Column("birth_disks", JSON, nullable=False),
    _of_lab(),
)

work = Table(
    "work",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=True),
    _text("workflow"),
    Column("lab_id", String(80), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("run", Integer, nullable=False),
    _word("status", WorkStatus),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("error", JSON),
    _of_lab(),
    Index("work_of_lab", "lab_id", "generation", "serial"),
    Index("work_by_status", "status", "serial"),
    sqlite_autoincrement=True,
)

notes = Table("notes", metadata, Column("name", String(80), primary_key=True), _text("text"))

progress = Table(
    "progress",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=True),
    Column("lab_id", String(80), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    _text("workflow"),
    _text("step"),
    _text("slot"),
    _word("status", StepStatus),
    _text("text"),
    Column("elapsed_s", Float),
    _of_lab(),
    Index("progress_of_lab", "lab_id", "serial"),
    Index("progress_of_step", "workflow", "step", "status", "serial"),
    sqlite_autoincrement=True,  # a serial is never used twice
)

receipts = Table("receipts", metadata, *_lab_key(), _text("receipt"), _of_lab())

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    _text("actor"),
    _text("action"),
    Column("lab_id", String(80), nullable=False, index=True),
    _text("outcome"),
    _text("detail"),
    sqlite_autoincrement=True,
)
