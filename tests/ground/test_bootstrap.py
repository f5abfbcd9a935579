"""The scripts that bring a machine to what labctl needs, as far as one machine can show it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=PROJECT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def ask(expression: str, **environ: str) -> str:
    return run("bash", "-c", f". bootstrap/facts.sh; {expression}", **environ).stdout.strip()


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A PATH with what every Debian has and nothing that labctl needs."""
    for name in ("bash", "cat", "cut", "df", "dirname", "grep", "id", "paste", "tail", "tr", "awk"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    return str(tmp_path)


def test_a_second_setup_says_and_does_nothing() -> None:
    done = run("bootstrap/setup", "dev", "engine")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_this_machine_passes_the_preflight() -> None:
    done = run("bootstrap/preflight", "engine")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_a_bare_machine_lacks_is_named(bare: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = run(
        "/bin/bash",
        "-c",
        f"cd {tmp_path}/empty; . {PROJECT}/bootstrap/facts.sh; has_as_root() {{ false; }}; "
        "has_engine_process() { false; }; find_python() { :; }; list_missing_packages engine",
        PATH=bare,
    )
    packages = [line.split(":")[0] for line in missing.stdout.splitlines()]
    for package in ("python3", "python3-venv", "docker.io", "mmdebstrap", "openssh-client"):
        assert package in packages, missing.stdout + missing.stderr
    assert all(": " in line for line in missing.stdout.splitlines()), "each says what it is for"


def test_the_preflight_names_all_problems_at_once(tmp_path: Path) -> None:
    facts = (PROJECT / "bootstrap" / "facts.sh").read_text()
    (tmp_path / "bootstrap").mkdir()
    (tmp_path / "bootstrap" / "preflight").write_text(
        (PROJECT / "bootstrap" / "preflight").read_text()
    )
    planted = "NEEDED_MEMORY_MIB=99999999 NEEDED_DISK_GIB=999999 USED_DISK_GIB=999999\n"
    planted += "find_python() { :; }; python3() { echo Python 3.9; }; debian_version() { :; }\n"
    (tmp_path / "bootstrap" / "facts.sh").write_text(facts + planted)
    done = run(
        "bash", str(tmp_path / "bootstrap" / "preflight"), "engine", DOCKER_HOST="tcp://there:2376"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "nothing was changed" in done.stderr
    for problem in ("memory:", "disk:", "Python:", "Docker: DOCKER_HOST", "system:"):
        assert f"  - {problem}" in done.stderr, done.stderr
    assert done.stderr.count("\n      -> ") == done.stderr.count("\n  - "), "each says what to do"


def test_state_is_where_labctl_looks(tmp_path: Path) -> None:
    assert ask("find_state_dir", LABCTL_STATE=str(tmp_path)) == str(tmp_path)
    as_person = "id() { echo 1000; }; unset LABCTL_STATE; find_state_dir"
    assert ask(as_person, HOME="/h", XDG_STATE_HOME="") == "/h/.local/state/labctl"
    assert ask(as_person, XDG_STATE_HOME="/x") == "/x/labctl"


@pytest.mark.parametrize("word", ["a b", "it's", '"$HOME"', "*", "", "a\nb"])
def test_words_reach_a_command_in_group_docker_whole(word: str) -> None:
    command = 'sg() { sh -c "$3"; }; in_docker_group printf \'<%s>\' x "$WORD"'
    done = run("bash", "-c", f". bootstrap/facts.sh; {command}", WORD=word)
    assert done.stdout == f"<x><{word}>"


def test_a_zombie_is_no_process(tmp_path: Path) -> None:
    program = tmp_path / "labctl-undead"
    shutil.copy("/bin/sleep", program)
    answer = f"has_process {program.name} && echo lives || echo none"
    with subprocess.Popen([program, "60"]) as process:
        assert ask(answer) == "lives"
        process.kill()  # a zombie until `with` collects it
        until = f"until grep -qs '({program.name}) Z ' /proc/{process.pid}/stat; do :; done"
        assert ask(f"{until}; {answer}") == "none"


def test_a_command_keeps_its_exit_code() -> None:
    assert run("bootstrap/as-docker", "sh", "-c", "exit 7").returncode == 7
