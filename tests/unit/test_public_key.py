from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import InputError
from provisioner.rules.public_key import (
    ALLOWED,
    LIMIT_BYTES,
    SK_ECDSA,
    SK_ED25519,
    parse_public_key,
)

Private = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def spell(key: Private) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@cache
def make_rsa(bits: int) -> str:
    return spell(rsa.generate_private_key(65537, bits))


ED25519 = spell(ed25519.Ed25519PrivateKey.generate())
ECDSA = {
    curve.name: spell(ec.generate_private_key(curve))
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
}


def pack(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(4) + field for field in fields)


def build_line(key_type: str, blob: bytes) -> str:
    return f"{key_type} {base64.b64encode(blob).decode()}"


POINT = base64.b64decode(ECDSA["secp256r1"].split()[1])[-65:]
COMPRESSED = bytes([2 + POINT[-1] % 2]) + POINT[1:33]
SK = {
    SK_ED25519: build_line(SK_ED25519, pack(SK_ED25519.encode(), b"\x07" * 32, b"ssh:")),
    SK_ECDSA: build_line(SK_ECDSA, pack(SK_ECDSA.encode(), b"nistp256", POINT, b"ssh:work")),
}
ACCEPTED: dict[str, Callable[[], str]] = {
    "ed25519": lambda: ED25519,
    **{name: lambda name=name: ECDSA[name] for name in ECDSA},  # type: ignore[misc]
    "rsa 3072": lambda: make_rsa(3072),
    "rsa 4096": lambda: make_rsa(4096),
    **{name: lambda name=name: SK[name] for name in SK},  # type: ignore[misc]
}


def make_certificate() -> str:
    ca = ed25519.Ed25519PrivateKey.generate()
    builder = (
        SSHCertificateBuilder()
        .public_key(ed25519.Ed25519PrivateKey.generate().public_key())
        .type(SSHCertificateType.USER)
        .valid_principals([b"ana"])
        .valid_before(2**63)
        .valid_after(0)
        .key_id(b"x")
    )
    return builder.sign(ca).public_bytes().decode()


def make_private() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@pytest.mark.parametrize("name", ACCEPTED)
@pytest.mark.parametrize(
    "dress", ["{}", "{}\n", "  {}\r\n", "{} ana@laptop", "{}\t Ana's 日本 key\n"]
)
def test_accepted_and_spelled_without_its_comment(name: str, dress: str) -> None:
    line = ACCEPTED[name]()
    assert parse_public_key(dress.format(line)) == line


@pytest.mark.parametrize("letter", ["x", "é"])
def test_the_limit_is_one_of_bytes(letter: str) -> None:
    letters, rest = divmod(LIMIT_BYTES - len(ED25519) - 1, len(letter.encode()))
    fits = f"{ED25519} {letter * letters}{'x' * rest}"
    assert len(fits.encode()) == LIMIT_BYTES
    assert parse_public_key(fits) == ED25519
    with pytest.raises(InputError, match="is larger than 16 kB"):
        parse_public_key(f"{fits} ")


@pytest.mark.parametrize("name", ["ed25519", "rsa 3072", SK_ED25519, SK_ECDSA])
def test_openssh_agrees(name: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(parse_public_key(ACCEPTED[name]()) + "\n")
    subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True)


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", "is empty"),
    "blank": (lambda: " \n\t", "is empty"),
    "too large": (lambda: ED25519 + " " + "x" * LIMIT_BYTES, "is larger than 16 kB"),
    "two keys": (lambda: f"{ED25519}\n{ED25519}", "has 2 lines, not one"),
    "key and option line": (lambda: f"{ED25519}\ncommand=x", "has 2 lines, not one"),
    "carriage return inside": (lambda: f"{ED25519}\rssh-rsa x", "has control characters"),
    "NUL": (lambda: ED25519 + " a\0b", "has control characters"),
    "escape": (lambda: ED25519 + " \x1b[2J", "has control characters"),
    "next line": (lambda: ED25519 + " a\x85b", "has control characters"),
    "surrogate": (lambda: ED25519 + " \ud800", "has control characters"),
    "byte order mark": (lambda: "\ufeff" + ED25519, "does not begin with a key type"),
    "option": (lambda: f'command="sh" {ED25519}', "does not begin with a key type"),
    "known_hosts line": (lambda: f"host {ED25519}", "does not begin with a key type"),
    "@cert-authority": (lambda: f"@cert-authority * {ED25519}", "does not begin with a key type"),
    "comment": (lambda: f"# {ED25519}", "does not begin with a key type"),
    "type in capitals": (ED25519.upper, "does not begin with a key type"),
    "template": (lambda: "{{ key }}", "does not begin with a key type"),
    "DSA": (lambda: "ssh-dss AAAA", "is a DSA key"),
    "certificate": (make_certificate, "is a certificate"),
    "type alone": (lambda: "ssh-ed25519", "ends after its type"),
    "no base64": (lambda: "ssh-ed25519 !!!!", "is not base64"),
    "not ASCII": (lambda: "ssh-ed25519 日本日本", "is not base64"),
    "cut": (lambda: ED25519[:-1], "is not base64"),
    "shorter": (lambda: ED25519[:-4], "is no valid ssh-ed25519 key"),
    "longer": (lambda: ED25519 + "AAAA", "is no valid ssh-ed25519 key"),
    "another inside": (
        lambda: f"ssh-rsa {ED25519.split()[1]}",
        "is no valid ssh-rsa key",
    ),
    "certificate as a key": (
        lambda: f"ssh-ed25519 {make_certificate().split()[1]}",
        "is no valid ssh-ed25519 key",
    ),
    "security key as a plain one": (
        lambda: f"ssh-ed25519 {SK[SK_ED25519].split()[1]}",
        "is no valid ssh-ed25519 key",
    ),
    "plain as a security key": (
        lambda: f"{SK_ED25519} {ED25519.split()[1]}",
        f"is no valid {SK_ED25519} key",
    ),
    "rsa 2048": (lambda: make_rsa(2048), "is an RSA key of 2048 bits, not of 3072 to 16384"),
    "sk short point": (
        lambda: build_line(SK_ED25519, pack(SK_ED25519.encode(), b"\x07" * 31, b"ssh:")),
        f"is no valid {SK_ED25519} key",
    ),
    "sk junk after": (
        lambda: build_line(SK_ED25519, pack(SK_ED25519.encode(), b"\x07" * 32, b"ssh:", b"x")),
        f"is no valid {SK_ED25519} key",
    ),
    "sk without end": (
        lambda: build_line(SK_ED25519, pack(SK_ED25519.encode(), b"\x07" * 32) + b"\xff\xff\xff"),
        f"is no valid {SK_ED25519} key",
    ),
    "sk application": (
        lambda: build_line(SK_ED25519, pack(SK_ED25519.encode(), b"\x07" * 32, b"ssh:\n")),
        f"is no valid {SK_ED25519} key",
    ),
    "sk off its curve": (
        lambda: build_line(SK_ECDSA, pack(SK_ECDSA.encode(), b"nistp256", b"\x04" * 65, b"ssh:")),
        f"is no valid {SK_ECDSA} key",
    ),
    "compressed point": (
        lambda: build_line(
            "ecdsa-sha2-nistp256", pack(b"ecdsa-sha2-nistp256", b"nistp256", COMPRESSED)
        ),
        "is no valid ecdsa-sha2-nistp256 key",
    ),
    "sk compressed point": (
        lambda: build_line(SK_ECDSA, pack(SK_ECDSA.encode(), b"nistp256", COMPRESSED, b"ssh:")),
        f"is no valid {SK_ECDSA} key",
    ),
    "sk other curve": (
        lambda: build_line(SK_ECDSA, pack(SK_ECDSA.encode(), b"nistp384", POINT, b"ssh:")),
        f"is no valid {SK_ECDSA} key",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_what_is_wrong_and_what_is_allowed(name: str) -> None:
    build, reason = REFUSED[name]
    with pytest.raises(InputError) as caught:
        parse_public_key(build())
    assert caught.value.what.startswith(f"the public key {reason}")
    assert caught.value.hint == ALLOWED


def test_a_private_key_is_never_repeated() -> None:
    text = make_private()
    with pytest.raises(InputError, match="this is a private key") as caught:
        parse_public_key(text)
    assert not [line for line in text.splitlines() if line in str(caught.value)]


@given(st.text(), st.sampled_from(["", "ssh-ed25519 ", "ssh-rsa ", f"{SK_ED25519} "]))
def test_any_text_is_accepted_or_an_input_error(text: str, start: str) -> None:
    try:
        line = parse_public_key(start + text)
    except InputError:
        return
    assert parse_public_key(line) == line


@given(
    st.sampled_from([ED25519, *ECDSA.values(), *SK.values()]),
    st.integers(0, 200),
    st.binary(min_size=1, max_size=4),
)
def test_a_changed_blob_is_refused_or_stays_one_canonical_line(
    line: str, at: int, new: bytes
) -> None:
    key_type, encoded = line.split()
    blob = bytearray(base64.b64decode(encoded))
    blob[at : at + len(new)] = new
    try:
        parsed = parse_public_key(build_line(key_type, bytes(blob)))
    except InputError:
        return
    assert parsed.split()[0] == key_type
    assert parsed.isascii()
    assert len(parsed.split()) == 2
    assert parse_public_key(parsed) == parsed
