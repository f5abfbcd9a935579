"""From what pydantic finds to what IT reads: one table of words, and the model's own schema.

The sentence of a problem has two halves. What is wrong comes from the kind of error (`WRONG`);
what is allowed comes from the model's JSON schema at that place, so that it can never differ
from what is checked. Values are never repeated: somebody may have put a password there.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from provisioner.errors import FileProblemsError, Problem
from provisioner.files.yaml_source import KeyPath, YamlSource

Model = TypeVar("Model", bound=BaseModel)
Schema = dict[str, Any]

# Every error type that the models of provisioner.model.spec can raise, in our words.
WRONG = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "enum": "not one of the known words",
    "string_type": "not text",
    "string_pattern_mismatch": "wrong form",
    "string_too_long": "too long",
    "int_type": "not a whole number",
    "greater_than_equal": "too small",
    "less_than_equal": "too large",
    "multiple_of": "not a multiple of {multiple_of}",
    "tuple_type": "not a list",
    "dict_type": "not a mapping of keys",
    "model_type": "not a mapping of keys",
    "too_short": "too few",
    "too_long": "too many",
    "value_error": "wrong form",
}

# What each pattern of provisioner.model.spec lets through, in words.
PATTERNS = {
    r"^[a-z][a-z0-9]{0,11}$": "1 to 12 of a-z and 0-9, starting with a letter",
    r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$": "1 to 20 of a-z, 0-9 and -, starting with a letter",
    r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$": "1 to 40 of a-z, 0-9 and -, starting with a letter",
    r"^[a-z][a-z0-9_]{0,39}$": "1 to 40 of a-z, 0-9 and _, starting with a letter",
    r"^(/[^/%\\{}\x00-\x1f]{1,80})+$": (
        "an inventory path such as /DC0/vm/labs, without % \\ { } in it"
    ),
    r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$": "a host name or an address, without port",
    r"^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,127}$": (
        "a user name of letters, digits and _, further on also . @ - and \\"
    ),
    r"^https?://[^\s{}'\"\\@]+$": "an http:// or https:// address without user name and password",
    r"^([0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}$": (
        "a SHA-256 fingerprint: 32 pairs of hex digits with colons between"
    ),
    r"^[^\x00-\x1f{}]+$": "one line of text, without { and }",
    r"^[a-z][a-z0-9_]*\.(sh|py)$": "a file's name such as login_works.sh, ending in .sh or .py",
    r"^/[A-Za-z0-9/_.-]+$": "an absolute path such as /usr/bin/python3",
}

FORMATS = {
    "path": "a file's path",
    "ipv4": "an IPv4 address",
    "ipv6": "an IPv6 address",
    "ipv4network": "an IPv4 network by its first address, such as 10.0.0.0/24",
    "ipv6network": "an IPv6 one such as fd00::/64",
}


def load_model(source: YamlSource, model: type[Model], problems: Iterable[Problem] = ()) -> Model:
    """Turn a source into its model.

    Args:
        source: the file as plain data.
        model: what it must be.
        problems: faults that the caller found itself, reported together with all others.

    Raises:
        FileProblemsError: every problem of writing, of the model and of the caller at once.
    """
    found = [*source.problems, *problems]  # the caller's words are the more special ones
    value: Model | None = None
    try:
        value = model.model_validate_json(json.dumps(source.data), strict=True)
    except ValidationError as error:
        found += _explain(source, model, error)
    if value is None or found:
        raise FileProblemsError(keep_first(found))
    return value


def keep_first(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Keep one problem for each key of each file: the first one says enough."""
    first: dict[tuple[str, int, int, str], Problem] = {}
    for problem in problems:
        place = (problem.file, problem.line, problem.column, problem.key)
        first.setdefault(place, problem)
    return tuple(first.values())


def _explain(
    source: YamlSource, model: type[BaseModel], error: ValidationError
) -> Iterable[Problem]:
    for fault in error.errors():
        path = _find_path(source, fault["type"], fault["loc"])
        spoiled = any(path[:depth] in source.spoiled for depth in range(len(path) + 1))
        if not spoiled and not _is_echo(fault):
            yield source.problem(path, _describe(model, path, dict(fault)))


def _find_path(source: YamlSource, kind: str, loc: tuple[int | str, ...]) -> KeyPath:
    """Cut what pydantic appends for unions and keys; a missing key has no place of its own."""
    if kind == "missing":
        return loc
    while loc and loc not in source.places:
        loc = loc[:-1]
    return loc


def _is_echo(fault: Any) -> bool:
    """Tell whether a list is "too short" only because its entries have faults of their own."""
    if fault["type"] != "too_short":
        return False
    return bool(len(fault["input"]) >= fault["ctx"]["min_length"])


def _describe(model: type[BaseModel], path: KeyPath, fault: dict[str, Any]) -> str:
    kind, schema = fault["type"], get_schema(model, path)
    if kind == "extra_forbidden":
        names = get_schema(model, path[:-1]).get("properties", {})
        return describe_unknown("key", str(path[-1]), names.keys(), "allowed here")
    if kind == "value_error" and schema.get("type") in ("array", "object"):
        return str(fault["ctx"]["error"])  # a rule of ours over several values, in our own words
    if fault["loc"][-1:] == ("[key]",):
        names = _describe_names(get_schema(model, path[:-1]))
        return f"a key of this name is not allowed; allowed: {names}"
    word = "needed" if kind == "missing" else "allowed"
    return f"{_say_wrong(kind, fault)}; {word}: {describe(schema)}"


def _say_wrong(kind: str, fault: dict[str, Any]) -> str:
    value = fault["input"]
    if value is None:
        return "no value"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "not text, put it in quotes"
    return WRONG.get(kind, "not allowed").format(**fault.get("ctx", {}))


def describe_unknown(kind: str, name: str, known: Collection[str], there: str = "there are") -> str:
    """Say that a name is not known, which one is near, and which ones there are."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown {kind}{hint}; {there}: {', '.join(known) or 'none'}"


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def get_schema(model: type[BaseModel], path: KeyPath) -> Schema:
    """Return the part of the model's JSON schema that a key path leads to; {} means anything."""
    root = _schema(model)
    here = _resolve(root, root)
    for part in path:
        here = _resolve(root, _step(here, part))
    return here


def _step(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        return dict(schema.get("items", {}))
    named: Schema = {**schema.get("properties", {})}
    if part in named:
        return dict(named[part])
    return dict(next(iter(schema.get("patternProperties", {}).values()), {}))


def _resolve(root: Schema, schema: Schema) -> Schema:
    """Follow a reference, and the one real choice of something that may be absent."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return dict(root["$defs"][name])
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return _resolve(root, choices[0])
    if choices:
        return {"anyOf": choices}
    return schema


def describe(schema: Schema) -> str:
    """Say what a schema allows, in plain words."""
    if "anyOf" in schema:
        return " or ".join(describe(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(schema["enum"])
    return _DESCRIBE.get(schema.get("type", ""), lambda _: "anything")(schema)


def _describe_text(schema: Schema) -> str:
    if "pattern" in schema:
        length = f", at most {schema['maxLength']} characters" if "maxLength" in schema else ""
        return PATTERNS[schema["pattern"]] + length
    return FORMATS[schema["format"]] if "format" in schema else "text"


def _describe_integer(schema: Schema) -> str:
    low, high, factor = (schema.get(key) for key in ("minimum", "maximum", "multipleOf"))
    bounds = f"from {low} to {high}" if high is not None else f"from {low} on"
    return f"a whole number {bounds}" + (f", a multiple of {factor}" if factor else "")


def _describe_array(schema: Schema) -> str:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if high:
        return f"a list of {low} to {high} entries"
    return "a list of at least one entry" if low else "a list"


def _describe_object(schema: Schema) -> str:
    if names := list(schema.get("properties", ())):
        return f"the keys {', '.join(names)}"
    least = "at least one entry" if schema.get("minProperties") else "entries"
    return f"{least}, with {_describe_names(schema)}"


def _describe_names(schema: Schema) -> str:
    patterns = [PATTERNS[pattern] for pattern in schema.get("patternProperties", ())]
    return f"names of {patterns[0]}" if patterns else "names of your own"


_DESCRIBE = {
    "string": _describe_text,
    "integer": _describe_integer,
    "array": _describe_array,
    "object": _describe_object,
}
