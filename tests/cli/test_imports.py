"""Quick verbs import no adapter: help, and the list of labs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"ansible", "ansible_runner", "dbos", "docker", "paramiko", "pyVmomi"}
PROGRAM = """
import json, sys
from provisioner.cli.main import main
try:
    main({words})
except SystemExit as leaving:
    assert not leaving.code, leaving.code
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def list_imports(words: list[str], state: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LABCTL_STATE": str(state)},
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "words", [["--help"], ["list"], ["list", "--all", "--json"], ["worker", "--help"]]
)
def test_quick_verbs_import_no_adapter(words: list[str], tmp_path: Path) -> None:
    assert list_imports(words, tmp_path / "state") & HEAVY == set()


def test_an_import_would_be_seen() -> None:
    program = PROGRAM.replace("import json, sys", "import json, sys, dbos, pyVmomi")
    done = subprocess.run(
        [sys.executable, "-c", program.format(words=["--help"])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"dbos", "pyVmomi"} <= set(json.loads(done.stdout.splitlines()[-1]))
