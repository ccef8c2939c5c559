"""Laws of the run state machine."""

from hypothesis import given
from hypothesis import strategies as st

from service.domain.run import ACTIVE, NEXT, TERMINAL, RunState, may_follow


def test_every_state_has_its_successors_written_down() -> None:
    assert set(NEXT) == set(RunState)


def test_a_terminal_state_is_never_left_and_never_active() -> None:
    assert all(not NEXT[state] for state in TERMINAL)
    assert not TERMINAL & ACTIVE
    assert all(NEXT[state] for state in set(RunState) - TERMINAL)


def test_every_state_can_reach_an_end() -> None:
    ends = set(TERMINAL)
    while True:
        more = {state for state in RunState if NEXT[state] & ends} | ends
        if more == ends:
            break
        ends = more
    assert ends == set(RunState)


def test_only_promoting_leads_to_a_new_champion() -> None:
    into_probation = {state for state in RunState if may_follow(state, RunState.PROBATION)}
    assert into_probation == {RunState.PROMOTING}
    into_promoting = {state for state in RunState if may_follow(state, RunState.PROMOTING)}
    assert into_promoting == {RunState.EVALUATING, RunState.AWAITING_APPROVAL}


@given(st.lists(st.sampled_from(list(RunState)), max_size=30))
def test_no_walk_passes_a_gate_it_failed(wished: list[RunState]) -> None:
    state, seen = RunState.QUEUED, [RunState.QUEUED]
    for after in wished:
        if may_follow(state, after):
            state = after
            seen.append(after)
    if RunState.REJECTED in seen:
        assert seen[-1] is RunState.REJECTED
    if RunState.PROMOTING in seen:
        assert RunState.EVALUATING in seen[: seen.index(RunState.PROMOTING)]
