"""Custom attributes, as people and inventories set them."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyVmomi import vim, vmodl

from tests.simulator.conftest import Client
from tests.simulator.test_permissions import below, grant, read


def test_a_field_is_defined_and_set(start: Callable[..., Client]) -> None:
    client = start()
    manager, vm = client.content.customFieldsManager, client.clone("described")
    for path in ("customValue", "value", "availableField"):
        assert read(client, vm, path) == (None, None), "unset, not empty"
    owner = manager.AddCustomFieldDef("owner", vim.VirtualMachine, None, None)
    room = manager.AddCustomFieldDef("room", None, None, None)
    assert [(one.name, one.type) for one in manager.field] == [("owner", str), ("room", str)]
    assert {one.name for one in vm.availableField} == {"owner", "room"}
    assert [one.name for one in client.labs.availableField] == ["room"]
    manager.SetField(vm, owner.key, "ana")
    manager.SetField(vm, room.key, "3")
    manager.SetField(vm, owner.key, "ben")
    for values in (vm.customValue, vm.value, vm.summary.customValue):
        assert {one.key: one.value for one in values} == {owner.key: "ben", room.key: "3"}
    assert read(client, client.template, "customValue") == (None, None)


def test_fields_that_make_no_sense_are_refused(client: Client) -> None:
    manager = client.content.customFieldsManager
    field = manager.AddCustomFieldDef("of VMs", vim.VirtualMachine, None, None)
    with pytest.raises(vim.fault.DuplicateName):
        manager.AddCustomFieldDef("of VMs", None, None, None)
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.AddCustomFieldDef("", None, None, None)
    for ref, key in ((client.template, field.key + 100), (client.labs, field.key)):
        with pytest.raises(vmodl.fault.InvalidArgument):
            manager.SetField(ref, key, "x")


def test_setting_one_is_a_privilege(client: Client) -> None:
    client.clone("undescribed")
    key = client.content.customFieldsManager.AddCustomFieldDef("guarded", None, None, None).key
    for privileges in ((), ("Global.SetCustomField",)):
        ana = grant(client, below("DC0/vm/labs", *privileges))
        vm = ana.find("DC0/vm/labs/undescribed")
        if privileges:
            ana.content.customFieldsManager.SetField(vm, key, "x")
            assert vm.customValue[0].value == "x"
        else:
            with pytest.raises(vim.fault.NoPermission):
                ana.content.customFieldsManager.SetField(vm, key, "x")
