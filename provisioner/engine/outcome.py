"""What came of a step or of a workflow, as plain data, so that every engine hands on the same.

`{"value": ...}`, `{"error": ...}` as `errors.to_data` tells it, or `{"unfit": why}` for a value
that cannot be recorded.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from typing import Any

from provisioner.errors import LabctlError, from_data, to_data

Outcome = dict[str, Any]

_LOG = logging.getLogger(__name__)


def to_outcome(act: Callable[[], Any], what: str) -> Outcome:
    """Run `act` and tell what came of it; `what` names it in a log. Raises no Exception."""
    try:
        value = act()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome
        if not isinstance(error, LabctlError):
            # Where it happened, without its text and values: they may hold anything.
            where = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s in %s\n%s", type(error).__name__, what, where)
        return {"error": {key: _storable(text) for key, text in to_data(error).items()}}
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return {"value": json.loads(text.encode())}
    except (TypeError, ValueError) as error:
        return {"unfit": f"{what} did not return plain data: {error}"}


def get_value(outcome: Outcome) -> Any:
    """Return the value. Raises the error of the outcome, TypeError for an unfit value."""
    if "error" in outcome:
        raise from_data(outcome["error"])
    if "unfit" in outcome:
        raise TypeError(outcome["unfit"])
    return outcome["value"]


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair has no UTF-8
