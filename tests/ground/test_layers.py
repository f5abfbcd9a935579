"""A planted violation of each contract is caught by the contract that it breaks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
CONTRACTS: list[dict[str, Any]] = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]

# contract -> the module that does wrong, and the line by which it does
VIOLATIONS = {
    "layers": ("rules/naming.py", "from provisioner import files"),
    "cycles": ("model/spec.py", "from provisioner.model import lab"),
    "cli-adapters": ("cli/output.py", "from provisioner import store"),
    "simulator-alone": ("simulator/world.py", "from provisioner import errors"),
    "nobody-imports-simulator": ("app/simulator.py", "from provisioner import simulator"),
    "pyvmomi": ("workflows/work.py", "from pyVmomi import vim"),
    "dbos": ("store/schema.py", "import dbos"),
    "ansible": ("workflows/provision.py", "import ansible_runner"),
    "paramiko": ("workflows/checks.py", "import paramiko"),
    "sqlalchemy": ("app/labs.py", "from sqlalchemy import select"),
    "terminal": ("app/wiring.py", "from rich.console import Console"),
    "docker": ("app/simulator.py", "import docker"),
    "pure": ("rules/lease.py", "import time"),
}


def list_modules() -> set[str]:
    package = PROJECT / "provisioner"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    files = {path.stem for path in package.glob("*.py")} - {"__init__"}
    return {f"provisioner.{name}" for name in folders | files}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its contracts."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(PROJECT / "pyproject.toml", folder)
    shutil.copytree(
        PROJECT / "provisioner",
        folder / "provisioner",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder


def test_the_house_as_it_is_keeps_every_contract(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_every_contract_has_its_violation() -> None:
    assert sorted(VIOLATIONS) == sorted(contract["id"] for contract in CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["id"])
def test_a_violation_is_caught(house: Path, contract: dict[str, Any]) -> None:
    name, line = VIOLATIONS[contract["id"]]
    module = house / "provisioner" / name
    before = module.read_text()
    try:
        module.write_text(f"{before}\n{line}\n")
        done = lint(house)
    finally:
        module.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract['name']} BROKEN" in done.stdout


def test_a_module_outside_the_layers_is_caught(house: Path) -> None:
    stray = house / "provisioner" / "stray.py"
    try:
        stray.write_text('"""Belongs nowhere."""\n')
        done = lint(house)
    finally:
        stray.unlink()
    assert done.returncode == 1
    assert "stray" in done.stdout


@pytest.mark.parametrize(
    "contract",
    [contract for contract in CONTRACTS if " only in " in contract["name"]],
    ids=lambda contract: contract["id"],
)
def test_a_ban_holds_for_every_module_but_those_it_names(contract: dict[str, Any]) -> None:
    allowed = contract["name"].split(" only in ")[1].split(" and ")
    everybody_else = list_modules() - {f"provisioner.{name}" for name in allowed}
    assert set(contract["source_modules"]) == everybody_else


def test_nobody_means_every_module() -> None:
    (contract,) = (each for each in CONTRACTS if each["id"] == "nobody-imports-simulator")
    assert set(contract["source_modules"]) == list_modules() - {"provisioner.simulator"}
    (contract,) = (each for each in CONTRACTS if each["id"] == "simulator-alone")
    assert set(contract["forbidden_modules"]) == list_modules() - {"provisioner.simulator"}
