"""Login, logout, what may be asked without one, and what HTTP clients may do wrong."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import pytest
from pyVmomi import vim, vmodl
from pyVmomi.SoapAdapter import SoapStubAdapter

if TYPE_CHECKING:
    from tests.simulator.conftest import Client, Simulator

Query = vmodl.query.PropertyCollector
ENVELOPE = (
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
    "<soapenv:Body>{}</soapenv:Body></soapenv:Envelope>"
)


@pytest.fixture(name="anonymous")
def _anonymous(simulator: Simulator) -> Any:
    stub = SoapStubAdapter(
        host=simulator.host,
        port=simulator.port,
        version="vim.version.v8_0_3_0",
        sslContext=simulator.tls,
    )
    yield vim.ServiceInstance("ServiceInstance", stub)
    stub.DropConnections()


@pytest.mark.parametrize(
    ("user", "password"),
    [("administrator@vsphere.local", "wrong"), ("somebody", None), ("", "")],
)
def test_wrong_login(simulator: Simulator, anonymous: Any, user: str, password: str | None) -> None:
    manager = anonymous.RetrieveContent().sessionManager
    given = simulator.password if password is None else password
    with pytest.raises(vim.fault.InvalidLogin):
        manager.Login(user, given)
    assert manager.Login("Administrator@VSPHERE.LOCAL", simulator.password).key


def test_before_login_only_the_service_itself_can_be_read(anonymous: Any) -> None:
    content = anonymous.RetrieveContent()
    assert content.about.apiVersion == "8.0.3.0"
    assert content.sessionManager.currentSession is None
    for read in (
        lambda: content.rootFolder.name,
        lambda: content.searchIndex.FindByInventoryPath("DC0"),
        lambda: content.propertyCollector.WaitForUpdates(""),
    ):
        with pytest.raises(vim.fault.NotAuthenticated):
            read()
    spec = Query.FilterSpec(
        objectSet=[Query.ObjectSpec(obj=content.rootFolder)],
        propSet=[Query.PropertySpec(type=vim.Folder, pathSet=["name"])],
    )
    (found,) = content.propertyCollector.RetrieveProperties([spec])
    assert not found.propSet
    assert isinstance(found.missingSet[0].fault, vim.fault.NotAuthenticated)


def test_logout_ends_the_session_with_all_its_own(simulator: Simulator, client: Client) -> None:
    before = set(simulator.world.records)
    other = simulator.connect()
    content = other.RetrieveContent()
    assert content.sessionManager.currentSession.userName == "administrator@vsphere.local"
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    assert view._moId in simulator.world.records
    content.sessionManager.Logout()
    assert view._moId not in simulator.world.records
    assert set(simulator.world.records) == before
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = content.rootFolder.name
    assert client.labs.name == "labs", "another session goes on"


def test_a_terminated_session_finds_out_at_its_next_call(
    simulator: Simulator, client: Client
) -> None:
    manager = client.content.sessionManager
    other = simulator.connect().RetrieveContent()
    key = other.sessionManager.currentSession.key
    assert key in [session.key for session in manager.sessionList]
    assert manager.SessionIsActive(key, "administrator@vsphere.local")
    manager.TerminateSession([key])
    assert not manager.SessionIsActive(key, "administrator@vsphere.local")
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = other.rootFolder.name
    with pytest.raises(vim.fault.NotFound):
        manager.TerminateSession([key])


def post(simulator: Simulator, body: str) -> tuple[int, str]:
    connection = http.client.HTTPSConnection(
        simulator.host, simulator.port, context=simulator.tls, timeout=10
    )
    try:
        connection.request("POST", "/sdk", body.encode(), {"Content-Type": "text/xml"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


THIS = '<_this type="ServiceInstance">ServiceInstance</_this>'
LOGIN = '<_this type="SessionManager">SessionManager</_this><userName>a</userName>'


@pytest.mark.parametrize(
    "body",
    [
        "no XML",
        "<a/>",
        ENVELOPE.format(""),
        ENVELOPE.format(f'<Nonsense xmlns="urn:vim25">{THIS}</Nonsense>'),
        ENVELOPE.format('<CurrentTime xmlns="urn:vim25"/>'),
        ENVELOPE.format(f'<CurrentTime xmlns="urn:vim25">{THIS}<other>1</other></CurrentTime>'),
        ENVELOPE.format(f'<Login xmlns="urn:vim25">{LOGIN}</Login>'),
        '<!DOCTYPE a [<!ENTITY b "c">]>' + ENVELOPE.format("<a>&b;</a>"),
        ENVELOPE.format(f'<CurrentTime xmlns="urn:vim25">{THIS}</CurrentTime>')[:-20],
    ],
    ids=[
        "text",
        "no envelope",
        "empty",
        "method",
        "no _this",
        "parameter",
        "missing",
        "doctype",
        "cut",
    ],
)
def test_malformed_calls_are_invalid_requests(simulator: Simulator, body: str) -> None:
    status, text = post(simulator, body)
    assert status == 500
    assert "InvalidRequestFault" in text
    status, text = post(
        simulator, ENVELOPE.format(f'<CurrentTime xmlns="urn:vim25">{THIS}</CurrentTime>')
    )
    assert (status, "CurrentTimeResponse" in text) == (200, True)


def test_a_body_may_come_in_chunks(simulator: Simulator) -> None:
    """Some clients send no length; what follows on the connection is understood all the same."""
    body = ENVELOPE.format(f'<CurrentTime xmlns="urn:vim25">{THIS}</CurrentTime>').encode()
    connection = http.client.HTTPSConnection(
        simulator.host, simulator.port, context=simulator.tls, timeout=10
    )
    for _ in range(2):
        connection.request("POST", "/sdk", iter([body[:7], body[7:]]), encode_chunked=True)
        response = connection.getresponse()
        assert (response.status, b"CurrentTimeResponse" in response.read()) == (200, True)
    connection.close()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/elsewhere", {}),
        ("/sdk", {"Content-Length": "-1"}),
        ("/sdk", {"Content-Length": "x"}),
        ("/sdk", {"Content-Length": str(10**9)}),
    ],
)
def test_other_posts_are_refused(simulator: Simulator, path: str, headers: dict[str, str]) -> None:
    connection = http.client.HTTPSConnection(
        simulator.host, simulator.port, context=simulator.tls, timeout=10
    )
    connection.putrequest("POST", path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 400
    response.read()
    connection.close()


def test_a_reference_is_named_as_vcenter_names_it(simulator: Simulator) -> None:
    """Clients other than pyVmomi know ``ManagedObjectReference`` only."""
    spec = (
        "<specSet><propSet><type>ServiceInstance</type><pathSet>content.rootFolder</pathSet>"
        '</propSet><objectSet><obj type="ServiceInstance">ServiceInstance</obj></objectSet>'
        "</specSet>"
    )
    this = '<_this type="PropertyCollector">propertyCollector</_this>'
    call = f'<RetrieveProperties xmlns="urn:vim25">{this}{spec}</RetrieveProperties>'
    status, text = post(simulator, ENVELOPE.format(call))
    assert (status, 'xsi:type="ManagedObjectReference" type="Folder"' in text) == (200, True)


def test_methods_vsphere_has_and_the_simulator_not(client: Client) -> None:
    with pytest.raises(vmodl.fault.MethodNotFound):
        client.template.AcquireTicket("webmks")


def test_one_connection_serves_many_calls_and_they_are_counted(
    simulator: Simulator, client: Client
) -> None:
    connection = http.client.HTTPSConnection(
        simulator.host, simulator.port, context=simulator.tls, timeout=10
    )

    def get(path: str) -> tuple[int, bytes]:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    status, versions = get("/sdk/vimServiceVersions.xml")
    socket = connection.sock
    assert (status, b"<version>8.0.3.0</version>" in versions) == (200, True)
    before = json.loads(get("/labctl/requests")[1])
    client.si.CurrentTime()
    client.si.CurrentTime()
    after = json.loads(get("/labctl/requests")[1])
    assert after["CurrentTime"] - before.get("CurrentTime", 0) == 2
    assert get("/nothing")[0] == 404
    assert connection.sock is socket, "kept alive"
    connection.close()
