"""One sealed file with all that cannot be made anew, and putting it back."""

from __future__ import annotations

import getpass
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from provisioner.app.worker import UNDER_WAY
from provisioner.app.worker_process import find_holder, keeping_workers_out
from provisioner.app.wiring import House
from provisioner.credentials import get_installation
from provisioner.credentials.private_files import (
    add_private_file,
    ensure_private_folder,
    read_private_file,
    sync_folder,
    translated,
)
from provisioner.credentials.sealing import seal, unseal
from provisioner.errors import BusyError, InputError, RefusedError, RestoredStoreError, to_data
from provisioner.model.lab import AuditEntry, WorkStatus
from provisioner.rules.restored import RESTORED_NOTE, find_restored_at
from provisioner.store import SqlStore, open_store
