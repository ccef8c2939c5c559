"""How versions are learned, judged and checked: pure functions on frames. Alone may import evidently."""
