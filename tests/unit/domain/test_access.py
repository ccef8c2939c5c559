"""Roles and the form of keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.access import (
    KEY_LENGTH,
    RIGHTS,
    Right,
    Role,
    digest_of,
    id_of,
    is_well_formed,
    key_of,
    rights_of,
    roles_with,
)

KEYS = st.builds(key_of, st.binary(min_size=5, max_size=5), st.binary(min_size=32, max_size=32))
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@given(KEYS)
def test_a_key_is_well_formed_and_tells_its_id(key: str) -> None:
    assert is_well_formed(key)
    assert len(key) == KEY_LENGTH
    assert key == f"rtr_{id_of(key)}_{key[13:]}"


@given(KEYS, st.integers(4, KEY_LENGTH - 1), st.sampled_from(LETTERS))
def test_one_wrong_character_anywhere_is_told_as_a_slip(key: str, place: int, letter: str) -> None:
    mistyped = key[:place] + letter + key[place + 1 :]
    assert is_well_formed(mistyped) == (mistyped == key)


@given(KEYS, st.integers(4, KEY_LENGTH - 2))
def test_two_characters_that_changed_places_are_told_as_a_slip(key: str, place: int) -> None:
    turned = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert is_well_formed(turned) == (turned == key)


@pytest.mark.parametrize("text", ["", "rtr_", "x" * KEY_LENGTH, "rtr_aaaaaaaa_" + "a" * 58, "rtr_AAAAAAAA_" + "a" * 59])
def test_what_is_no_key_is_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(key_of(bytes(5), bytes(32)) + "\n")


def test_a_key_of_too_few_random_bytes_is_not_made() -> None:
    with pytest.raises(ValueError, match="32"):
        key_of(bytes(5), bytes(31))


def test_every_role_has_just_the_rights_that_the_documents_say() -> None:
    assert {role: set(rights) for role, rights in RIGHTS.items()} == {
        Role.PREDICT: {Right.PREDICT, Right.DESCRIBE},
        Role.VIEWER: {Right.READ, Right.DESCRIBE},
        Role.OPERATOR: {Right.READ, Right.DESCRIBE, Right.OPERATE, Right.ROLL_BACK},
        Role.APPROVER: {Right.READ, Right.DESCRIBE, Right.APPROVE, Right.ROLL_BACK},
        Role.ADMIN: set(Right),
    }
    assert set(RIGHTS) == set(Role)


def test_several_roles_may_what_each_of_them_may() -> None:
    assert rights_of([Role.PREDICT, Role.VIEWER]) == {Right.PREDICT, Right.DESCRIBE, Right.READ}
    assert rights_of([]) == frozenset()
    assert roles_with(Right.APPROVE) == [Role.APPROVER, Role.ADMIN]


def test_a_digest_is_of_the_whole_key() -> None:
    first, second = key_of(bytes(5), bytes(32)), key_of(bytes(5), bytes(31) + b"\x01")
    assert digest_of(first.encode()) != digest_of(second.encode())
    assert len(digest_of(b"")) == 32
