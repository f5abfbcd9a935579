"""The LabStore and Audit ports on SQLAlchemy Core: SQLite."""

from provisioner.store.sql_store import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
