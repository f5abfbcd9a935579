"""The way to vCenter: what is proved before the password is sent, and what dead ends look like."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import (
    CertificateError,
    LoginRefusedError,
    StoppedError,
    VsphereUnavailableError,
)
from provisioner.model.spec import VCenter
from provisioner.vsphere.session import REFUSED_S, Limits, Session
from tests.contract.hands import RealClock
from tests.contract.vcenters import Simulated

QUICK = Limits(connect_s=0.4, request_s=0.4)
WRONG_PIN = ":".join(["AB"] * 32)
Count = Callable[[], dict[str, int]]


def make_vcenter(hand: Simulated, **changes: Any) -> VCenter:
    known = hand.make_site().vcenter.model_dump()
    return VCenter.model_validate({**known, **changes})


def read_pin(hand: Simulated) -> str:
    endpoint = hand.client.simulator
    pem = ssl.get_server_certificate((endpoint.host, endpoint.port))
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, 64, 2))


@contextmanager
def session(
    vcenter: VCenter, password: Callable[[], str], limits: Limits = QUICK
) -> Iterator[Session]:
    made = Session(vcenter, password, limits, RealClock())
    yield made
    made.close()


def never() -> str:
    raise AssertionError("the password must not be asked for")


def test_the_right_pin_is_enough(vcenter: Simulated) -> None:
    pinned = make_vcenter(vcenter, ca_file=None, thumbprint_sha256=read_pin(vcenter))
    with session(pinned, lambda: vcenter.client.simulator.password) as made:
        content, serial = made.open()
        assert serial == 1
        assert content.about.instanceUuid == vcenter.client.content.about.instanceUuid


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        ({"ca_file": None, "thumbprint_sha256": WRONG_PIN}, "not the pinned one"),
        ({"ca_file": None}, "not trusted"),
    ],
    ids=["another pin", "the machine's own CAs"],
)
def test_no_password_goes_to_an_unproved_server(
    vcenter: Simulated, count: Count, certificate: dict[str, Any], said: str
) -> None:
    count()
    with session(make_vcenter(vcenter, **certificate), never) as made:
        for _ in range(2):
            with pytest.raises(CertificateError, match=said):
                made.open()
    assert count() == {}, "not a single request reached it"


def test_the_certificate_that_was_shown_is_told_as_a_site_file_pins_it(vcenter: Simulated) -> None:
    pinned = make_vcenter(vcenter, ca_file=None, thumbprint_sha256=WRONG_PIN)
    with session(pinned, never) as made, pytest.raises(CertificateError) as caught:
        made.open()
    assert f"it shows SHA-256 {read_pin(vcenter).upper()}, pinned is {WRONG_PIN.upper()}" in str(
        caught.value
    )


def test_every_connection_is_checked(vcenter: Simulated) -> None:
    pinned = make_vcenter(vcenter, ca_file=None, thumbprint_sha256=read_pin(vcenter))
    with session(pinned, lambda: vcenter.client.simulator.password) as made:
        made.open()
        made._stub.DropConnections()
        made._stub.scheme.keywords["sha256"] = WRONG_PIN.replace(":", "").lower()
        with pytest.raises(CertificateError):
            made.read_content()


def test_another_host_name_is_not_what_the_certificate_says(vcenter: Simulated) -> None:
    alias = make_vcenter(vcenter, host="127.0.0.2")
    with session(alias, never) as made, pytest.raises((CertificateError, VsphereUnavailableError)):
        made.open()


def test_a_ca_file_that_is_none_is_named(vcenter: Simulated, tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "missing.pem"):
        with (
            session(make_vcenter(vcenter, ca_file=path), never) as made,
            pytest.raises(CertificateError, match=path.name),
        ):
            made.open()


def test_a_wrong_password_is_tried_once(vcenter: Simulated, count: Count) -> None:
    count()
    with session(make_vcenter(vcenter), lambda: "not it") as made:
        for _ in range(5):
            with pytest.raises(LoginRefusedError) as caught:
                made.read_content()
            assert "not it" not in str(caught.value)
    assert count()["Login"] == 1, "an account is not locked by us"


class Later(RealClock):
    """A clock that can be put forward."""

    by_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.by_s


def test_a_changed_password_is_taken_up_after_a_while(vcenter: Simulated, count: Count) -> None:
    passwords, clock = ["the old one"], Later()
    made = Session(make_vcenter(vcenter), lambda: passwords[-1], QUICK, clock)
    count()
    for _ in range(2):
        with pytest.raises(LoginRefusedError):
            made.open()
    passwords.append(vcenter.client.simulator.password)
    with pytest.raises(LoginRefusedError):
        made.open()
    assert count()["Login"] == 1
    clock.by_s = REFUSED_S + 1
    assert made.open()[1] == 1
    made.close()


def test_a_closed_port_is_said_at_once(vcenter: Simulated) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        session(make_vcenter(vcenter, port=port), never) as made,
        pytest.raises(VsphereUnavailableError, match="nothing listens there"),
    ):
        made.open()


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections and do with each what `answer` does."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            kept.append(connection)
            threading.Thread(target=answer, args=[connection], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
        for connection in kept:
            connection.close()


def test_a_server_that_never_answers_is_left_by_the_deadline(vcenter: Simulated) -> None:
    with listening(lambda _: None) as port:
        started_s = time.monotonic()
        with (
            session(make_vcenter(vcenter, port=port), never) as made,
            pytest.raises(VsphereUnavailableError, match="no answer in time"),
        ):
            made.open()
        assert time.monotonic() - started_s < 5


def test_a_vcenter_that_falls_silent_after_tls_is_left_by_the_deadline(
    vcenter: Simulated, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    state = tmp_path / "simulator"
    context.load_cert_chain(state / "certificate.pem", state / "key.pem")
    heard: list[bytes] = []

    def swallow(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                while data := tls.recv(4096):
                    heard.append(data)
        except OSError:
            return

    with listening(swallow) as port:
        started_s = time.monotonic()
        with (
            session(make_vcenter(vcenter, port=port), never) as made,
            pytest.raises(VsphereUnavailableError, match="no answer in time"),
        ):
            made.open()
        assert time.monotonic() - started_s < 5
    assert b"RetrieveServiceContent" in b"".join(heard)


def test_what_is_no_vcenter_is_said(vcenter: Simulated) -> None:
    with (
        listening(lambda connection: connection.sendall(b"220 mail ready\r\n")) as port,
        session(make_vcenter(vcenter, port=port), never) as made,
        pytest.raises(VsphereUnavailableError),
    ):
        made.open()


def end_other_sessions(hand: Simulated) -> None:
    """Do what an administrator, or the idle timeout, does to a session."""
    manager = hand.client.content.sessionManager
    own = manager.currentSession.key
    manager.TerminateSession([one.key for one in manager.sessionList if one.key != own])


def test_a_read_logs_in_again_after_the_session_ended(vcenter: Simulated, count: Count) -> None:
    with session(make_vcenter(vcenter), lambda: vcenter.client.simulator.password) as made:
        ask = lambda content: content.searchIndex.FindByInventoryPath("DC0")  # noqa: E731 - twice
        first = made.read("look", ask)
        end_other_sessions(vcenter)
        count()
        assert made.read("look", ask) == first
        assert count()["Login"] == 1
        assert made.open()[1] == 2


def test_a_mutating_call_is_not_resent_after_the_session_ended(
    vcenter: Simulated, count: Count
) -> None:
    with session(make_vcenter(vcenter), lambda: vcenter.client.simulator.password) as made:
        folder = made.read("look", lambda it: it.searchIndex.FindByInventoryPath("DC0/vm/labs"))
        vm = vcenter.plant("alone")
        end_other_sessions(vcenter)
        count()
        with (
            pytest.raises(VsphereUnavailableError, match="session has ended"),
            made.cannot("power on alone"),
        ):
            type(vcenter.refer(vm))(vm, folder._stub).PowerOnVM_Task()
        assert count().get("Login", 0) == 0
    assert not vcenter.is_on(vm)


def test_closing_logs_out_and_ends_it(vcenter: Simulated, count: Count) -> None:
    password = vcenter.client.simulator.password
    made = Session(make_vcenter(vcenter), lambda: password, QUICK, RealClock())
    made.open()
    before = len(vcenter.client.content.sessionManager.sessionList)
    made.close()
    made.close()
    assert count()["Logout"] == 1
    assert len(vcenter.client.content.sessionManager.sessionList) == before - 1
    with pytest.raises(StoppedError):
        made.open()


def test_the_session_is_kept_alive_only_when_there_is_one(vcenter: Simulated, count: Count) -> None:
    count()
    with session(make_vcenter(vcenter), lambda: vcenter.client.simulator.password) as made:
        made.keep_alive()
        assert count() == {}
        made.open()
        made.keep_alive()
        assert count()["CurrentTime"] == 1
