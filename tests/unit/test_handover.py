from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import RefusedError
from provisioner.model.lab import Lab
from provisioner.model.spec import Blueprint
from provisioner.rules.handover import build_handover
from provisioner.rules.ssh import build_known_hosts
from tests.fakes.samples import KEY, make_guests, make_lab, make_site

HOME = "~/.ssh/labctl/ana-mlops"


def lab_with(*roles: str, slots: tuple[str, ...] = ("workbench",)) -> Lab:
    lab = make_lab("ana-mlops", 1, *slots)
    data = lab.blueprint.model_dump(mode="json")
    for guest in data["guests"]:
        guest["roles"] = ["linux_baseline", *roles]
    return replace(lab, blueprint=Blueprint.model_validate(data))


def build(lab: Lab, home: str = HOME, **site: Any) -> dict[str, str]:
    return dict(build_handover(lab, make_guests(lab), make_site(**site), home=home))


def ask_ssh(folder: Path, slot: str) -> dict[str, str]:
    """Ask the real ssh what it makes of the config, from another folder."""
    done = subprocess.run(
        ["ssh", "-G", "-F", folder / "ssh_config", slot],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def write(folder: Path, lab: Lab, **site: Any) -> Path:
    folder.mkdir()
    for name, text in build(lab, str(folder), **site).items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", ["plain", "with a blank", "100%", "ümlaut"])
def test_ssh_understands_the_config_wherever_it_is(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / name, lab_with("mlflow_server"))
    seen = ask_ssh(folder, "workbench")
    assert seen["hostname"] == "192.0.2.10"
    assert seen["user"] == "ana"
    assert seen["hostkeyalias"] == "ana-mlops-workbench"
    assert seen["stricthostkeychecking"] in ("true", "yes")
    assert seen["globalknownhostsfile"] == "/dev/null"
    assert seen["exitonforwardfailure"] == "no"
    assert seen["localforward"] == "5000 [127.0.0.1]:5000"
    assert seen["identityfile"].startswith("~/.ssh/id_"), "the hire's own keys are tried"
    assert "proxyjump" not in seen
    assert seen["userknownhostsfile"].replace("%%", "%") == f"{folder}/known_hosts"


def test_ssh_finds_the_pinned_key_there(tmp_path: Path) -> None:
    folder = write(tmp_path / "handover", lab_with())
    known = ["ssh-keygen", "-f", str(folder / "known_hosts"), "-F", "ana-mlops-workbench"]
    done = subprocess.run(known, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"ana-mlops-workbench {KEY}"


def test_the_way_leads_over_the_jump_host(tmp_path: Path) -> None:
    jump = {"host": "jump.example.com", "user": "lab", "port": 2222}
    folder = write(tmp_path / "handover", lab_with(), jump_host=jump)
    assert ask_ssh(folder, "workbench")["proxyjump"] == "lab@jump.example.com:2222"
    assert "jump.example.com" in (folder / "README.md").read_text()


def test_several_guests_have_a_block_and_a_port_each(tmp_path: Path) -> None:
    lab = lab_with("mlflow_server", slots=("workbench", "tracking"))
    folder = write(tmp_path / "handover", lab)
    assert ask_ssh(folder, "tracking")["hostkeyalias"] == "ana-mlops-tracking"
    assert ask_ssh(folder, "tracking")["localforward"] == "5001 [127.0.0.1]:5000"
    assert ask_ssh(folder, "workbench")["localforward"] == "5000 [127.0.0.1]:5000"
    readme = (folder / "README.md").read_text()
    assert "2 Linux machines" in readme
    assert "-i PATH-OF-YOUR-KEY workbench" in readme, "the first is the example"
    assert "<http://127.0.0.1:5001>" in readme
    assert (folder / "known_hosts").read_text().count("\n") == 2


def test_the_archive_says_where_to_unpack_it() -> None:
    files = build(lab_with("mlflow_server", "toolchain", "docker_engine"))
    assert f"UserKnownHostsFile {HOME}/known_hosts" in files["ssh_config"]
    assert "tar -xzf ana-mlops.tar.gz -C ~/.ssh/labctl\n" in files["README.md"]
    assert f"ssh -F {HOME}/ssh_config workbench" in files["README.md"]
    assert "unpack" not in build(lab_with(), "/srv/handover/ana-mlops")["README.md"]


def test_the_readme_answers_what_a_hire_asks() -> None:
    readme = build(lab_with("mlflow_server", "toolchain", "docker_engine"))["README.md"]
    for answer in (
        "one Linux machine of",
        "2026-03-16 09:30 UTC",
        "`ana`",
        "http://127.0.0.1:5000",
        "lab-credentials\n",
        'eval "$(lab-credentials --shell)"',
        "docker run --rm",
        "g++ ",
        "is root on the",
        "write to IT",
        "There is no backup",
    ):
        assert answer in readme
    assert not re.search(r"[{}]", re.sub(r"int main\(\) \{.*\}", "", readme)), "a blank was left"
    assert max(map(len, readme.splitlines())) <= 100


def test_the_readme_speaks_only_of_what_is_there() -> None:
    readme = build(lab_with())["README.md"]
    for absent in ("MLflow listens", "lab-credentials", "g++", "docker"):
        assert absent not in readme
    assert "FROM scratch" not in build(lab_with("docker_engine"))["README.md"]


def test_the_example_program_of_the_readme_works(tmp_path: Path) -> None:
    readme = build(lab_with("toolchain"))["README.md"]
    (printf,) = re.findall(r"^    (printf .*hello\.cpp)$", readme, re.MULTILINE)
    (compile_,) = re.findall(r"^    (g\+\+ .*hello)$", readme, re.MULTILINE)
    subprocess.run(["sh", "-c", printf], cwd=tmp_path, check=True)
    source = (tmp_path / "hello.cpp").read_text()
    assert source == '#include <iostream>\nint main() { std::cout << "it works\\n"; }\n'
    assert compile_ == "g++ -O2 -static -o hello hello.cpp && ./hello"


def test_nothing_in_it_is_secret() -> None:
    lab = lab_with("mlflow_server", "toolchain", "docker_engine")
    text = "".join(build(lab).values())
    assert "PRIVATE KEY" not in text
    assert make_guests(lab)[0].nonce not in text


@pytest.mark.parametrize("address", ["", "192.0.2.1\n    ProxyCommand id", "guest.example.com"])
def test_an_address_that_is_none_gets_into_no_config(address: str) -> None:
    lab = lab_with()
    with pytest.raises(RefusedError):
        build_handover(lab, make_guests(lab, address=address), make_site(), home=HOME)


def test_a_guest_without_a_pinned_key_is_not_in_known_hosts() -> None:
    lab = make_lab("ana-mlops", 1, "workbench", "tracking")
    first, second = make_guests(lab)
    text = build_known_hosts((replace(first, host_key=""), second))
    assert text == f"ana-mlops-tracking {KEY}\n"
