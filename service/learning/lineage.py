"""What a version is made of, as plain JSON values: libraries and parameters."""

import platform
from importlib.metadata import version
from typing import Any

__all__ = ["libraries", "parameters"]


def libraries() -> dict[str, str]:
    """Return the versions of everything that an artifact depends on when it is loaded."""
    names = ("scikit-learn", "numpy", "scipy", "joblib")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters of `estimator`, nested ones included; what JSON cannot hold stands as its text."""
    return {name: _plain(value) for name, value in sorted(estimator.get_params(deep=True).items())}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if hasattr(value, "get_params"):
        return type(value).__name__
    return getattr(value, "__qualname__", None) or str(value)
