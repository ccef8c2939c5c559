"""Laws of the error tree."""

from service.domain import errors
from service.domain.errors import RetrueError


def leaves(kind: type[RetrueError]) -> set[type[RetrueError]]:
    children = kind.__subclasses__()
    return {kind} if not children else set().union(*(leaves(child) for child in children))


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in leaves(RetrueError)]
    assert len(codes) == len(set(codes))


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    names = {kind.__name__ for kind in leaves(RetrueError)}
    assert names <= set(errors.__all__)
    drawing = errors.__doc__ or ""
    assert {name for name in names if name not in drawing} == set()
