"""Writing what the hire receives: a folder, and the same as an archive that is safe to send."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from provisioner.app.labs import Labs
from provisioner.errors import RefusedError
from provisioner.model.lab import Lab, LabState
from provisioner.rules.handover import build_handover

HIRE_HOME = "~/.ssh/labctl"


@dataclass(frozen=True)
class Handover:
    """Where the handover is: its folder, its archive, and the hire's ssh command from here."""

    folder: str
    archive: str
    ssh_command: str


def write_handover(labs: Labs, lab: Lab, out: Path | None) -> Handover:
    """Write a lab's handover below `out` (default: the state folder). Nothing in it is secret.

    Raises RefusedError when the lab is not ready.
    """
    if lab.state is not LabState.READY:
        raise RefusedError(
            f"lab {lab.lab_id} is {lab.state}: there is nothing to hand over",
            hint="provision it to its end first",
        )
    house = labs.house
    guests, site = labs.list_guests(lab), labs.get_site_of(lab)
    root = (out or house.state / "handover").absolute()
    folder = root / lab.lab_id
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, text in build_handover(lab, guests, site, home=str(folder)):
        (folder / name).write_text(text)
    archive = root / f"{lab.lab_id}.tar.gz"
    _write_archive(
        archive, lab.lab_id, build_handover(lab, guests, site, home=f"{HIRE_HOME}/{lab.lab_id}")
    )
    slot = guests[0].identity.slot
    return Handover(str(folder), str(archive), f"ssh -F {folder}/ssh_config {slot}")


def _write_archive(path: Path, folder: str, files: tuple[tuple[str, str], ...]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files:
            data = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
