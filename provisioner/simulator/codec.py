"""SOAP envelopes to method calls and back, with pyVmomi's own types as the codec.

Methods, parameters, results and faults all come from pyVmomi's type registry, so this module knows
no method by name except ``Fetch``, which pyVmomi sends for every attribute read and declares nowhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

from pyVmomi import SoapAdapter, vmodl
from pyVmomi.VmomiSupport import (
    F_OPTIONAL,
    XMLNS_VMODL_BASE,
    DataObject,
    Enum,
    GetServiceVersions,
    GetWsdlMethod,
    IsChildVersion,
    ManagedObject,
    Object,
    versionIdMap,
    versionMap,
)

API_VERSION = "8.0.3.0"
NEWEST = versionMap[f"vim25/{API_VERSION}"]
"""pyVmomi's name of the newest version we speak, and what a client gets that names none."""
SERVED_VERSIONS = tuple(
    versionIdMap[version]
    for version in GetServiceVersions("vim25")
    if IsChildVersion(NEWEST, version) and versionIdMap[version]
)
"""What vimServiceVersions.xml offers, newest first."""


@dataclass(frozen=True)
class Request:
    """One decoded call: the reference it is for, the method's metadata, its arguments by name."""

    target: ManagedObject
    method: Any
    args: Any


@functools.cache
def method_named(name: str) -> Any:
    """Return pyVmomi's metadata of a WSDL method.

    Raises:
        vmodl.fault.InvalidRequest: no vim method has this name.
    """
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

    members = {
        "__init__": start_unset,
        "_wsdlName": name,
        "_propList": fields,
        "_propInfo": {field.name: field for field in fields},
        "_version": NEWEST,
    }
    return type(name, (DataObject,), members)


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
        raise vmodl.fault.InvalidRequest(msg="a SOAP message has no document type")

    def StartElementHandler(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: N802 - expat's name, through pyVmomi
        _, name = self._reader.SplitTag(tag)
        if self._in_body and self.method is None:
            self.method = name
            self._reader.Deserialize(self._parser, _request_type(name), False, self.nsMap)
            self._reader.StartElementHandler(tag, attributes)
        self._in_body = self._in_body or tag == f"{SoapAdapter.XMLNS_SOAPENV} Body"

    def EndElementHandler(self, tag: str) -> None:  # noqa: N802 - expat's name, through pyVmomi
        """Nothing ends that matters outside the call."""

    def CharacterDataHandler(self, data: str) -> None:  # noqa: N802 - expat's name, through pyVmomi
        """No text matters outside the call."""


def decode(body: bytes) -> Request:
    """Decode a SOAP request.

    Raises:
        vmodl.fault.InvalidRequest: not XML, no call in it, an unknown method or type, an argument
            of the wrong type, or a required one missing.
    """
    parser = _EnvelopeParser()
    try:
        args = parser.parse(body)
    except (ExpatError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise vmodl.fault.InvalidRequest(msg=f"malformed request: {error}") from error
    if parser.method is None or args is None or getattr(args, "_this", None) is None:
        raise vmodl.fault.InvalidRequest(msg="the SOAP body holds no call with a _this")
    method = method_named(parser.method)
    for param in method.params:
        if getattr(args, param.name) is None and not param.flags & F_OPTIONAL:
            raise vmodl.fault.InvalidRequest(msg=f"{parser.method}: {param.name} is required")
    return Request(args._this, method, args)  # noqa: SLF001 - the property's name in SOAP


class _Serializer(SoapAdapter.SoapSerializer):
    """pyVmomi's serializer, which on the server's side may leave a required array empty."""

    def _Serialize(self, val: Any, info: Any, defNS: str) -> None:  # noqa: N802, N803 - pyVmomi's names
        if not (isinstance(val, list) and not val and info.type is not object):
            super()._Serialize(val, info, defNS)


def _serialize(value: Any, info: Any, version: str, *, as_detail: bool = False) -> str:
    writer = StringIO()
    serializer = _Serializer(writer, version, {**SoapAdapter.SOAP_NSMAP, XMLNS_VMODL_BASE: ""})
    (serializer.SerializeFaultDetail if as_detail else serializer.Serialize)(value, info)
    return writer.getvalue()


def version_from(soap_action: str) -> str:
    """Return pyVmomi's version name for a SOAPAction header such as ``"urn:vim25/8.0.3.0"``."""
    return versionMap.get(soap_action.strip('"').removeprefix("urn:"), NEWEST)


def _envelope(inner: str) -> bytes:
    text = f"{SoapAdapter.XML_HEADER}\n{SoapAdapter.SOAP_START}{inner}{SoapAdapter.SOAP_END}"
    return text.encode()


def encode_result(method: Any, result: Any, version: str, result_type: Any = None) -> bytes:
    """Encode what a method returned; ``result_type`` overrides the declared type (for Fetch)."""
    inner = ""
    if result is not None:
        info = Object(
            name="returnval", type=result_type or method.result, version=version, flags=F_OPTIONAL
        )
        inner = _serialize(result, info, version)
    tag = f"{method.wsdlName}Response"
    return _envelope(f'<{tag} xmlns="{XMLNS_VMODL_BASE}">{inner}</{tag}>')


def encode_fault(fault: vmodl.MethodFault, version: str) -> bytes:
    """Encode a fault as SOAP 1.1 does, its vim type in the detail."""
    name = type(fault)._wsdlName  # noqa: SLF001 - pyVmomi's public metadata
    info = Object(name=f"{name}Fault", type=object, version=version, flags=0)
    detail = _serialize(fault, info, version, as_detail=True)
    text = SoapAdapter.XmlEscape(fault.msg or name)
    tag = SoapAdapter.SOAP_FAULT_TAG
    return _envelope(
        f"<{tag}><faultcode>ServerFaultCode</faultcode><faultstring>{text}</faultstring>"
        f"<detail>{detail}</detail></{tag}>"
    )


def fingerprint(value: Any) -> str:
    """Return a text that is equal for equal values; pyVmomi's objects compare by identity only."""
    if value is None:
        return ""
    info = Object(name="v", type=object, version=NEWEST, flags=F_OPTIONAL)
    return _serialize(value, info, NEWEST)


def blank(kind: Any) -> Any:
    """Return a neutral value of a type, for a required property that nobody modelled."""
    if issubclass(kind, list):
        return kind()
    if issubclass(kind, Enum):
        return kind.values[0]
    if issubclass(kind, DataObject):
        return complete(kind())
    if kind is datetime:
        return datetime.fromtimestamp(0, UTC)
    return "" if kind is object else kind()


def complete(value: Any) -> Any:
    """Fill in, at any depth, every required property of a data object that is still unset.

    A real server never leaves a required property out, and pyVmomi cannot read one that is missing.
    """
    if isinstance(value, list):
        for item in value:
            complete(item)
    elif isinstance(value, DataObject):
        for info in value._GetPropertyList():  # noqa: SLF001 - pyVmomi's public metadata
            current = getattr(value, info.name)
            if current is None and not info.flags & F_OPTIONAL:
                object.__setattr__(value, info.name, blank(info.type))
            elif isinstance(current, list | DataObject):
                complete(current)
    return value


def typed(value: Any, kind: Any) -> Any:
    """Return a value as the declared type, so that it is named rightly where the type is open."""
    if value is None or isinstance(value, kind):
        return value
    return kind(value) if issubclass(kind, list | Enum | int | str) else value
