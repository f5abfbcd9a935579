from __future__ import annotations

import base64
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import CredentialError
from provisioner.model.lab import GuestIdentity
from provisioner.rules.userdata import HOST_KEY_INFO, build_guestinfo, parse_published_host_key
from tests.fakes.samples import KEY

IDENTITY = GuestIdentity("ana-mlops", 3, "workbench", "0b4a1c2e-9c2b-4a52-8a51-6f4f5e3c2d10")
NONCE = "5f" * 16


def build(identity: GuestIdentity = IDENTITY, nonce: str = NONCE) -> dict[str, str]:
    return dict(build_guestinfo(identity, "ana-mlops-workbench", admin_public_key=KEY, nonce=nonce))


def read(guestinfo: dict[str, str], name: str) -> str:
    assert guestinfo[f"guestinfo.{name}.encoding"] == "base64"
    return base64.b64decode(guestinfo[f"guestinfo.{name}"], validate=True).decode()


def read_userdata(guestinfo: dict[str, str]) -> Any:
    header, _, body = read(guestinfo, "userdata").partition("\n")
    assert header == "#cloud-config"
    return json.loads(body)


def test_the_same_arguments_give_the_same_small_bytes() -> None:
    assert build() == build()
    assert all(len(value) < 64 * 1024 for value in build().values())
    assert set(build()) == {
        "guestinfo.metadata",
        "guestinfo.metadata.encoding",
        "guestinfo.userdata",
        "guestinfo.userdata.encoding",
    }


def test_every_part_of_the_identity_makes_another_instance() -> None:
    others = [
        IDENTITY,
        GuestIdentity("bo-mlops", 3, "workbench", IDENTITY.instance_uuid),
        GuestIdentity("ana-mlops", 4, "workbench", IDENTITY.instance_uuid),
        GuestIdentity("ana-mlops", 3, "tracking", IDENTITY.instance_uuid),
        GuestIdentity("ana-mlops", 3, "workbench", "0b4a1c2e-9c2b-4a52-8a51-6f4f5e3c2d11"),
    ]
    metadata = [json.loads(read(build(identity), "metadata")) for identity in others]
    assert len({data["instance-id"] for data in metadata}) == len(others)
    assert metadata[0]["local-hostname"] == "ana-mlops-workbench"


def test_labctls_key_is_the_only_way_in() -> None:
    data = read_userdata(build())
    (user,) = data["users"]
    assert user["name"] == "labctl"
    assert user["ssh_authorized_keys"] == [KEY]
    assert user["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert user["lock_passwd"] is True
    assert not {"passwd", "hashed_passwd", "plain_text_passwd", "chpasswd"} & {*user, *data}
    assert data["ssh_pwauth"] is False
    assert data["disable_root"] is True


def test_the_guest_makes_its_own_host_key() -> None:
    data = read_userdata(build())
    assert data["ssh_deletekeys"] is True
    assert data["ssh_genkeytypes"] == ["ed25519"]
    assert "ssh_keys" not in data, "a host key in guestinfo would be everybody's"


@pytest.mark.parametrize("tools", ["vmware-rpctool", "vmtoolsd", "late"])
def test_the_guest_publishes_its_key_with_the_nonce(tmp_path: Path, tools: str) -> None:
    """Run the command of the userdata as a guest would, with tools that write down the call."""
    heard, key_file = tmp_path / "heard", tmp_path / "ssh_host_ed25519_key.pub"
    key_file.write_text(f"{KEY} root@guest\n")
    answers = {
        "vmware-rpctool": {"vmware-rpctool": f'printf %s "$1" > {heard}'},
        "vmtoolsd": {"vmtoolsd": f'[ "$1" = --cmd ] && printf %s "$2" > {heard}'},
        "late": {
            "vmware-rpctool": f"[ -e {heard}.once ] || {{ : > {heard}.once; exit 1; }}; "
            f'printf %s "$1" > {heard}'
        },
    }[tools]
    for name, body in {**answers, "sleep": "exit 0"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    _usermod, (shell, option, script) = read_userdata(build())["runcmd"]
    done = subprocess.run(
        [shell, option, script.replace("/etc/ssh/ssh_host_ed25519_key.pub", str(key_file))],
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    verb, name, text = heard.read_text().split(" ", 2)
    assert (verb, name) == ("info-set", HOST_KEY_INFO)
    assert parse_published_host_key(text, NONCE) == KEY


def test_a_guest_whose_tools_never_answer_says_so(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(KEY)
    (tmp_path / "sleep").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "sleep").chmod(0o755)
    shell, option, script = read_userdata(build())["runcmd"][1]
    done = subprocess.run(
        [shell, option, script.replace("/etc/ssh/ssh_host_ed25519_key.pub", f"{tmp_path}/key.pub")],
        env={"PATH": f"{tmp_path}:{os.defpath}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("VMware Tools did not take the host key\n")


def flip(text: str, place: int) -> str:
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


REFUSED = {
    "empty": "",
    "no key": NONCE,
    "no nonce": KEY,
    "another nonce": f"{'60' * 16} {KEY}",
    "a part of the nonce": f"{NONCE[:-1]} {KEY}",
    "another type": f"{NONCE} ssh-rsa {KEY.split()[1]}",
    "a type beside the key": f"{NONCE} ssh-ed25519 {flip(KEY.split()[1], 10)}",
    "too short": f"{NONCE} {KEY[:-4]}",
    "too long": f"{NONCE} {KEY}AAAA",
    "with a comment": f"{NONCE} {KEY} root@guest",
    "a certificate authority": f"{NONCE} @cert-authority {KEY}",
    "two lines": f"{NONCE} {KEY}\n{NONCE} {KEY}",
    "a line break inside": f"{NONCE}\n{KEY}",
    "no base64": f"{NONCE} ssh-ed25519 {'*' * 68}",
    "a wide digit": f"{NONCE} ssh-ed25519 {KEY.split()[1][:-1]}\uff11",
    "huge": f"{NONCE} {KEY}" + "x" * 1_000_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_key_that_is_not_exactly_that_is_refused(text: str) -> None:
    with pytest.raises(CredentialError, match="cannot be trusted") as caught:
        parse_published_host_key(text, NONCE)
    assert len(str(caught.value)) < 500
    assert NONCE not in str(caught.value)


def test_blanks_around_it_do_not_matter() -> None:
    assert parse_published_host_key(f" {NONCE} {KEY}\n", NONCE) == KEY


@given(st.text() | st.text(alphabet=f"{NONCE}{KEY} \n").map(lambda text: f"{NONCE} {text}"))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(CredentialError):
        assert parse_published_host_key(text, NONCE).startswith("ssh-ed25519 AAAAC3Nza")


@given(st.binary(min_size=32, max_size=32))
def test_every_ed25519_key_comes_through(point: bytes) -> None:
    head = base64.b64decode(KEY.split()[1])[:19]
    key = f"ssh-ed25519 {base64.b64encode(head + point).decode()}"
    assert parse_published_host_key(f"{NONCE} {key}", NONCE) == key
