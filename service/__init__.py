"""Retrue: keeps served scikit-learn models true."""

__version__ = "0.1.0"
