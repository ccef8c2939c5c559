"""An estimator that fits nothing twice: policies that are tried on one stream ask for the same fits again and again."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.metaestimators import available_if

__all__ = ["Remembered", "fits", "forget"]

_FITS: dict[str, Any] = {}
_COUNT = {"asked": 0, "fitted": 0}


def forget() -> None:
    """Let go of all fits: another stream asks for others."""
    _FITS.clear()


def fits() -> tuple[int, int]:
    """Return how many fits this process was asked for, and how many it computed."""
    return _COUNT["asked"], _COUNT["fitted"]


def _answers_chances(wrapper: Any) -> bool:
    return hasattr(wrapper.inner, "predict_proba")


class Remembered(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """`inner`, fitted once per process for the same rows, labels and weights.

    Parameters
    ----------
    inner
        The estimator; it must be a function of its parameters and its rows alone (a fixed seed).
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __sklearn_tags__(self) -> Any:
        return self.inner.__sklearn_tags__()

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Remembered":
        """Fit, or recall the fit."""
        key = _key(repr(self.inner), X, y, sample_weight)
        _COUNT["asked"] += 1
        if key not in _FITS:
            weights = {} if sample_weight is None else {"sample_weight": sample_weight}
            _FITS[key] = clone(self.inner).fit(X, y, **weights)
            _COUNT["fitted"] += 1
        self.fitted_ = _FITS[key]
        self.n_features_in_ = self.fitted_.n_features_in_
        if hasattr(self.fitted_, "classes_"):
            self.classes_ = self.fitted_.classes_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Answer as the fitted estimator does."""
        answers: NDArray[Any] = self.fitted_.predict(X)
        return answers

    @available_if(_answers_chances)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Answer as the fitted estimator does."""
        chances: NDArray[np.float64] = self.fitted_.predict_proba(X)
        return chances


def _key(name: str, *parts: Any) -> str:
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for part in parts:
        if part is None:
            digest.update(b"none")
            continue
        # A frame's values or an array's, text included: the bytes of its rows.
        plain = np.ascontiguousarray(part)
        digest.update(repr((plain.shape, plain.dtype)).encode())
        digest.update(repr(plain.tolist()).encode() if plain.dtype == object else plain.tobytes())
    return digest.hexdigest()
