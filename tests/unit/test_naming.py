from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from provisioner.errors import InputError
from provisioner.model.spec import Login, Short, Slot
from provisioner.rules.naming import (
    MAX_EMAIL,
    RESERVED,
    build_lab_id,
    build_login,
    build_vm_name,
    check_email,
    check_lab_id,
    check_login,
)
from tests.cases.harness import load_cases

HOSTILE = ["", "-ana", "ana-", "Ana", "a/b", "a%2f", "{{x}}", "ana\n", "\nana", "ана", "a b", "a.b"]
HOSTILE += ["ana\0", "$(id)", "..", "a" * 100, "ana\u0663", "--", "ana;id", "1ana"]

CASES = load_cases("naming.yml", needed={"email"}, allowed={"login", "refused"})


def read(email: str) -> str:
    return build_login(check_email(email))


@pytest.mark.parametrize("case", [case for case in CASES if "login" in case.values[0]])
def test_an_address_makes_a_login(case: dict[str, Any]) -> None:
    assert read(case["email"]) == case["login"]
    assert check_email(case["email"]) == case["email"], "the address itself stays as it is"


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case.values[0]])
def test_an_address_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        read(case["email"])
    assert caught.value.what == case["refused"]
    assert caught.value.hint


def test_an_address_has_a_length() -> None:
    longest = "anna@" + "a." * ((MAX_EMAIL - len("anna@com")) // 2) + "com"
    assert len(longest) == MAX_EMAIL
    assert check_email(longest) == longest
    with pytest.raises(InputError):
        check_email(f"j{longest}")


@pytest.mark.parametrize("name", [*HOSTILE, *sorted(RESERVED), "systemd-x"])
def test_a_chosen_login_is_never_repaired(name: str) -> None:
    with pytest.raises(InputError):
        check_login(name)


BUILD: dict[str, Callable[[str], str]] = {
    "login": lambda name: build_lab_id(name, "mlops"),
    "short": lambda name: build_lab_id("ana", name),
    "slot": lambda name: build_vm_name("ana-mlops", name),
    "lab id": lambda name: build_vm_name(name, "workbench"),
    "lab id's end": lambda name: build_vm_name(f"ana-{name}", "workbench"),
    "checked lab id": check_lab_id,
}


@pytest.mark.parametrize("part", BUILD)
@pytest.mark.parametrize("name", HOSTILE)
def test_no_part_of_a_name_may_be_hostile(part: str, name: str) -> None:
    with pytest.raises(InputError) as caught:
        BUILD[part](name)
    assert caught.value.what.isascii()
    assert "\n" not in caught.value.what


def test_names() -> None:
    assert build_lab_id("ana-silva", "mlops") == "ana-silva-mlops"
    assert check_lab_id("ana-silva-mlops") == "ana-silva-mlops"
    assert build_vm_name("ana-silva-mlops", "gpu-1") == "ana-silva-mlops-gpu-1"


def test_the_longest_name_is_a_host_name() -> None:
    assert len(build_vm_name(build_lab_id("a" * 24, "b" * 12), "c" * 20)) <= 63


def find_login(text: str) -> str | InputError:
    try:
        return read(text)
    except InputError as error:
        return error


@given(st.text(max_size=80) | st.emails())
def test_every_address_gives_a_safe_login_or_an_input_error(text: str) -> None:
    login = find_login(text)
    if isinstance(login, InputError):
        assert str(login).isascii()
        return
    TypeAdapter(Login).validate_python(login)
    assert login not in RESERVED
    assert build_login(f"{login}@example.com") == login, "the rule has nothing more to do"


def fits(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


NEAR_NAMES = st.text("abz09-_.A\n/%{", max_size=30)


@given(NEAR_NAMES, NEAR_NAMES, NEAR_NAMES)
def test_names_and_the_model_agree(login: str, short: str, slot: str) -> None:
    """The patterns stand in two places, for two regex engines: they must say the same."""
    wanted = fits(Login, login) and fits(Short, short) and fits(Slot, slot)
    try:
        name = build_vm_name(build_lab_id(login, short), slot)
    except InputError:
        assert not wanted
    else:
        assert wanted
        assert check_lab_id(name.removesuffix(f"-{slot}")) == f"{login}-{short}"


WORD = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
SHORT = st.from_regex(r"[a-z][a-z0-9]{0,4}", fullmatch=True)


@given(WORD, SHORT, WORD, SHORT)
def test_two_labs_never_share_an_id(login: str, short: str, other: str, other_short: str) -> None:
    if (login, short) == (other, other_short) or {login, other} & RESERVED:
        return
    if "systemd-" in login + other:
        return
    assert build_lab_id(login, short) != build_lab_id(other, other_short)
