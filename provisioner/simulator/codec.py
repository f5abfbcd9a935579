"""SOAP envelopes to method calls and back, with pyVmomi's own types as the codec.

Methods, parameters, results and faults all come from pyVmomi's type registry, so this module knows
no method by name but ``Fetch``, which pyVmomi sends for every attribute read and declares nowhere.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

from pyVmomi import SoapAdapter, VmomiSupport, vmodl
from pyVmomi.VmomiSupport import (
    F_OPTIONAL,
    XMLNS_VMODL_BASE,
    DataObject,
    Enum,
    GetServiceVersions,
    GetWsdlMethod,
    GetWsdlName,
    GuessWsdlType,
    ManagedObject,
    Object,
    versionIdMap,
    versionMap,
)

_is_child_version: Any = vars(VmomiSupport)["IsChildVersion"]  # it is not in pyVmomi's stubs
API_VERSION = "8.0.3.0"
NEWEST = versionMap[f"vim25/{API_VERSION}"]
"""pyVmomi's name of the newest version we speak, and what a client gets that names none."""
SERVED_VERSIONS = tuple(
    versionIdMap[version]
    for version in GetServiceVersions("vim25")
    if _is_child_version(NEWEST, version) and versionIdMap[version]
)
"""What vimServiceVersions.xml offers, newest first."""


def moid_of(ref: Any) -> str:
    """Return a reference's moId."""
    return str(ref._moId)  # noqa: SLF001 - the accessor is underscored and public


def fields_of(kind: Any) -> tuple[Any, ...]:
    """Return the metadata of a type's properties in the version we speak."""
    return _fields_of(kind)


@functools.cache
def _fields_of(kind: Any) -> tuple[Any, ...]:
    known = kind._GetPropertyList()  # noqa: SLF001 - as above
    return tuple(one for one in known if _is_child_version(NEWEST, one.version))


def field_of(kind: Any, name: str) -> Any:
    """Return the metadata of a property, None when the type has no such one."""
    try:
        return kind._GetPropertyInfo(name)  # noqa: SLF001 - as above
    except AttributeError:
        return None


@functools.cache
def method_named(name: str) -> Any:
    """Return pyVmomi's metadata of a WSDL method; an unknown one raises InvalidRequest."""
    if name == "Fetch":
        prop = Object(name="prop", type=str, version=NEWEST, flags=0)
        return Object(wsdlName="Fetch", params=(prop,), type=ManagedObject, privId=None)
    try:
        return GetWsdlMethod(XMLNS_VMODL_BASE, name).info
    except KeyError:
        raise vmodl.fault.InvalidRequest(msg=f"Unable to resolve WSDL method name {name}") from None


@functools.cache
def _request_type(name: str) -> type[DataObject]:
    """Return a data object type whose properties are ``_this`` and the method's parameters."""
    this = Object(name="_this", type=ManagedObject, version=NEWEST, flags=0)
    fields = [this, *method_named(name).params]

    def start_unset(self: DataObject) -> None:
        for field in fields:
            value = field.type() if issubclass(field.type, list) else None
            object.__setattr__(self, field.name, value)

    known = {field.name: field for field in fields}
    members = {"_wsdlName": name, "_version": NEWEST, "_propList": fields, "_propInfo": known}
    return type(name, (DataObject,), {"__init__": start_unset, **members})


class _EnvelopeParser(SoapAdapter.ExpatDeserializerNSHandlers):
    """Finds the call in a SOAP body and lets pyVmomi deserialize it as a data object."""

    def __init__(self) -> None:
        super().__init__()
        self.method: str | None = None
        self._in_body = False
        self._reader = SoapAdapter.SoapDeserializer()
        self._parser = ParserCreate(namespace_separator=SoapAdapter.NS_SEP)
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        SoapAdapter.SetHandlers(self._parser, SoapAdapter.GetHandlers(self))

    def parse(self, body: bytes) -> Any:
        self._parser.Parse(body, True)
        return self._reader.GetResult()

    def _refuse_doctype(self, *_args: object) -> None:
        raise ValueError("a SOAP message has no document type")

    def StartElementHandler(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: N802 - expat's name
        if self._in_body and self.method is None:
            self.method = self._reader.SplitTag(tag)[1]
            kind = _request_type(self.method)
            self._reader.Deserialize(self._parser, kind, False, self.nsMap)
            self._reader.StartElementHandler(tag, attributes)
        self._in_body = self._in_body or tag == f"{SoapAdapter.XMLNS_SOAPENV} Body"

    def EndElementHandler(self, tag: str) -> None:  # noqa: N802 - expat's name
        """Nothing ends that matters outside the call."""

    def CharacterDataHandler(self, data: str) -> None:  # noqa: N802 - expat's name
        """No text matters outside the call."""


def decode(body: bytes) -> tuple[Any, Any]:
    """Decode a SOAP request into the method's metadata and its arguments, ``_this`` among them.

    Raises:
        vmodl.fault.InvalidRequest: not XML, no call in it, an unknown method or type, an argument
            of the wrong type, or a required one missing.
    """
    parser = _EnvelopeParser()
    try:
        args = parser.parse(body)
    except (ExpatError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise vmodl.fault.InvalidRequest(msg=f"malformed request: {error}") from error
    if args is None:
        raise vmodl.fault.InvalidRequest(msg="the SOAP body holds no call")
    for param in fields_of(type(args)):
        if getattr(args, param.name) is None and not param.flags & F_OPTIONAL:
            raise vmodl.fault.InvalidRequest(msg=f"{parser.method}: {param.name} is required")
    return method_named(str(parser.method)), args


class _Serializer(SoapAdapter.SoapSerializer):
    """pyVmomi's serializer, as a server needs it.

    A required array may be empty, and a reference of an open type is named as vCenter names it
    (pyVmomi reads both names, other clients only the right one).
    """

    def _QName(self, typ: Any, defNS: str) -> tuple[str, str]:  # noqa: N802, N803 - pyVmomi's names
        attribute, name = super()._QName(typ, defNS)
        return attribute, name + ("Reference" if typ is ManagedObject else "")

    def _Serialize(self, val: Any, info: Any, defNS: str) -> None:  # noqa: N802, N803 - pyVmomi's names
        if not (isinstance(val, list) and not val and info.type is not object):
            super()._Serialize(val, info, defNS)


def _xml(value: Any, name: str, kind: Any, version: str, *, as_detail: bool = False) -> str:
    if value is None:
        return ""
    info = Object(name=name, type=kind, version=version, flags=F_OPTIONAL)
    writer = StringIO()
    serializer = _Serializer(writer, version, {**SoapAdapter.SOAP_NSMAP, XMLNS_VMODL_BASE: ""})
    (serializer.SerializeFaultDetail if as_detail else serializer.Serialize)(value, info)
    return writer.getvalue()


def version_from(soap_action: str) -> str:
    """Return pyVmomi's version name for a SOAPAction header such as ``"urn:vim25/8.0.3.0"``."""
    return str(versionMap.get(soap_action.strip('"').removeprefix("urn:"), NEWEST))


def _envelope(inner: str) -> bytes:
    text = f"{SoapAdapter.XML_HEADER}\n{SoapAdapter.SOAP_START}{inner}{SoapAdapter.SOAP_END}"
    return text.encode()


def encode_result(name: str, result: Any, kind: Any, version: str) -> bytes:
    """Encode what a method returned, which is of the declared type ``kind``."""
    inner = _xml(result, "returnval", kind, version)
    return _envelope(f'<{name}Response xmlns="{XMLNS_VMODL_BASE}">{inner}</{name}Response>')


def encode_fault(fault: Any, version: str) -> bytes:
    """Encode a fault as SOAP 1.1 does, its vim type in the detail."""
    name, tag = GetWsdlName(type(fault)), SoapAdapter.SOAP_FAULT_TAG
    detail = _xml(fault, f"{name}Fault", object, version, as_detail=True)
    return _envelope(
        f"<{tag}><faultcode>ServerFaultCode</faultcode><faultstring>"
        f"{SoapAdapter.XmlEscape(fault.msg or name)}</faultstring><detail>{detail}</detail></{tag}>"
    )


def fingerprint(value: Any) -> str:
    """Return a text that is equal for equal values; pyVmomi's objects compare by identity only."""
    return _xml(value, "v", object, NEWEST)


def blank(kind: Any) -> Any:
    """Return a neutral value of a type, for a required property that nobody modelled."""
    if issubclass(kind, Enum):
        return kind.values[0]
    if issubclass(kind, DataObject):
        return complete(kind())
    if issubclass(kind, ManagedObject):
        return kind("none")
    if kind is datetime:
        return datetime.fromtimestamp(0, UTC)
    return "" if kind is object else kind()


def complete(value: Any) -> Any:
    """Fill in, at any depth, every required property of a data object that is still unset.

    A real server never leaves one out, and pyVmomi cannot read an object that lacks one.
    """
    for item in value if isinstance(value, list) else ():
        complete(item)
    for info in fields_of(type(value)) if isinstance(value, DataObject) else ():
        current = getattr(value, info.name)
        if current is None and not info.flags & F_OPTIONAL:
            object.__setattr__(value, info.name, blank(info.type))
        elif isinstance(current, list | DataObject):
            complete(current)
    return value


def project(kind: Any, *sources: Any, **values: Any) -> Any:
    """Build a data object from values and from what the sources have under the same names."""
    for info in fields_of(kind):
        found = (getattr(source, info.name, None) for source in sources)
        value = next((one for one in found if one is not None), None)
        if value is not None:
            values.setdefault(info.name, value)
    return kind(**values)


def typed(value: Any, kind: Any) -> Any:
    """Return a value as the declared type, so that it is named rightly where the type is open."""
    if value is None or isinstance(value, kind):
        return value
    return kind(value) if issubclass(kind, list | Enum | int | str) else value


def from_plain(value: Any, kind: Any) -> Any:
    """Build a pyVmomi value from plain data.

    Args:
        value: a dict, with a ``type`` where a subtype is meant, a list, a scalar, or a reference
            as ``Type:moId``.
        kind: the declared type.
    """
    if isinstance(value, list):
        return kind(from_plain(item, kind.Item) for item in value)
    if issubclass(kind, ManagedObject):
        name, moid = value.split(":")
        return GuessWsdlType(name)(moid)
    if not isinstance(value, dict):
        return typed(value, kind)
    kind = GuessWsdlType(value["type"]) if "type" in value else kind
    named = {name: item for name, item in value.items() if name != "type"}
    return kind(**{n: from_plain(one, field_of(kind, n).type) for n, one in named.items()})
