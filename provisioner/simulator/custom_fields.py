"""Custom attributes: fields that clients define, and the values of them that objects carry."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim, vmodl

from provisioner.simulator.world import DERIVED, Call, Record, World, answers

Fields = vim.CustomFieldsManager
FIRST_KEY = 101


@answers(Fields, "AddCustomFieldDef")
def _add(call: Call) -> Any:
    record, name = call.record, call.args.name
    fields = record.props.get("field", [])
    if not name:
        raise vmodl.fault.InvalidArgument(invalidProperty="name")
    if name in [one.name for one in fields]:
        message = f"The name '{name}' already exists."
        raise vim.fault.DuplicateName(name=name, object=record.ref, msg=message)
    key, kind = FIRST_KEY + len(fields), call.args.moType
    made = Fields.FieldDef(key=key, name=name, type=str, managedObjectType=kind)
    record.props["field"] = [*fields, made]
    call.world.touch(*call.world.records.values())
    return made


def _available(world: World, record: Record) -> Any:
    """Return the fields that an object may carry, None when there are none."""
    fields = world.records["CustomFieldsManager"].props.get("field", [])
    kinds = [(one, one.managedObjectType or vim.ManagedEntity) for one in fields]
    return [one for one, kind in kinds if isinstance(record.ref, kind)] or None


@answers(Fields, "SetField")
def _set(call: Call) -> None:
    record, key = call.world.get(call.args.entity), call.args.key
    if key not in [one.key for one in _available(call.world, record) or ()]:
        raise vmodl.fault.InvalidArgument(invalidProperty="key")
    others = [one for one in record.props.get("customValue", []) if one.key != key]
    value = Fields.StringValue(key=key, value=call.args.value)
    record.props["customValue"] = [*others, value]
    call.world.touch(record)


DERIVED |= {
    (vim.ManagedEntity, "availableField"): _available,
    (vim.ManagedEntity, "value"): lambda _, record: record.props.get("customValue"),
}
