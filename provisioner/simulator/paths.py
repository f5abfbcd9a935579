"""Property paths such as ``config.hardware.device[4000].macAddress``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vmodl

from provisioner.simulator.codec import field_of, typed

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = re.compile(r'([A-Za-z_]\w*)(?:\[(?:"((?:[^"\\]|\\.)*)"|(-?\d+))\])?(\.|$)', re.ASCII)
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Step:
    """One property on the way, and the key of the array element that is meant, if any."""

    name: str
    key: str | int | None = None


def parse_path(path: str) -> tuple[Step, ...]:
    """Split a property path into its steps, or raise InvalidProperty."""
    steps, position = [], 0
    while found := _STEP.match(path, position):
        name, quoted, number, _ = found.groups()
        key = int(number) if number else _ESCAPED.sub(r"\1", quoted) if quoted is not None else None
        steps.append(Step(name, key))
        position = found.end()
        if position == len(path) and not path.endswith("."):
            return tuple(steps)
    raise vmodl.query.InvalidProperty(name=path, msg=f"{path!r} is no property path")


def _element(items: Any, key: str | int) -> Any:
    """Return the element of an array of data objects that carries a key, None when none does."""
    return next((item for item in items or () if getattr(item, "key", None) == key), None)


def _declared(kind: Any, name: str, path: str) -> Any:
    """Return the metadata of a property of a type or of any subtype of it."""
    queue = [kind]
    for candidate in queue:
        if (info := field_of(candidate, name)) is not None:
            return info
        queue.extend(candidate.__subclasses__())
    raise vmodl.query.InvalidProperty(name=path, msg=f"{kind.__name__} has no {path!r}")


def check_path(path: str, kind: Any) -> None:
    """Raise InvalidProperty when neither a managed object type nor a subtype has such a path."""
    steps = parse_path(path)
    for step in steps:
        kind = _declared(kind, step.name, path).type
        if issubclass(kind, list):
            if step.key is None and step is not steps[-1]:
                raise vmodl.query.InvalidProperty(name=path, msg=f"{path}: {step.name} is an array")
            kind = kind.Item if step.key is not None else kind
        elif step.key is not None:
            raise vmodl.query.InvalidProperty(name=path, msg=f"{path}: {step.name} is no array")


def resolve(path: str, kind: Any, read: Callable[[str], Any]) -> Any:
    """Return the value at a path of a managed object, None when something on the way is unset.

    Args:
        path: the property path.
        kind: the managed object's type.
        read: returns the managed object's property of a name.

    Raises:
        vmodl.query.InvalidProperty: the object at hand has no such property.
    """
    holder: Any = kind
    value: Any = None
    for step in parse_path(path):
        if (info := field_of(holder, step.name)) is None:
            raise vmodl.query.InvalidProperty(name=path)
        value = typed(read(step.name) if holder is kind else getattr(value, step.name), info.type)
        if step.key is not None:
            value = _element(value, step.key)
        elif holder is not kind and isinstance(value, list) and not value:
            return None
        if value is None:
            return None
        holder = type(value)
    return value
