"""Switches by name: what an operator, a quarantine or the breaker sets on a model, until somebody clears it."""

from typing import Literal, get_args

__all__ = ["CLEARABLE", "SETTABLE", "ClearName", "SwitchName"]

SwitchName = Literal["pause", "freeze", "pin", "hold"]
"""What a person may set."""
ClearName = Literal[SwitchName, "quarantine", "breaker"]
"""What a person may clear."""

SETTABLE: tuple[str, ...] = get_args(SwitchName)
CLEARABLE: tuple[str, ...] = get_args(ClearName)
