"""A champion on probation as a viewer sees it, and taken back by hand."""

from service.domain.probation import ProbationState
from service.domain.run import RunState, Trigger
from service.domain.version import VersionState
from service.storage import audit, checks, models, probations, runs, versions
from service.storage.probations import ProbationRow
from service.storage.runs import Run
from tests.served import AT, FLIP, crown, flip, pack
from tests.unit.api.conftest import Api

S = RunState


def watched(api: Api, number: int, *, previous: int = 1) -> tuple[ProbationRow, Run]:
    """Make a new version champion, on probation, with its run."""
    generation = crown(api.database, pack(api.store, FLIP, flip(number), number=number))
    with api.database.write() as conn:
        run = runs.create(conn, "flip", trigger=Trigger.MANUAL, actor="t", reason="t", at=AT)
        for state in (S.PREPARING, S.VALIDATING, S.TRAINING, S.PACKAGING, S.EVALUATING, S.PROMOTING, S.PROBATION):
            run = runs.transition(conn, run.id, state, actor="t", reason="t", at=AT)
        row = probations.begin(
            conn, "flip", generation=generation, version=number, previous_version=previous, run_id=run.id, at=AT,
            event_time=AT, actor="t",
        )  # fmt: skip
    return row, run


def kept(api: Api, row: ProbationRow) -> None:
    with api.database.write() as conn:
        probations.end(
            conn, row, ProbationState.KEPT, run_state=S.SUCCEEDED, code="clean", reason="well", actor="t", at=AT,
            event_time=AT,
        )  # fmt: skip


def state(api: Api, number: int) -> VersionState:
    with api.database.read() as conn:
        return versions.get(conn, "flip", number).state


def test_a_probation_stands_with_its_model_its_version_and_in_the_metrics(api: Api) -> None:
    assert api.client.get("/v1/models/flip").json()["probation"] is None
    assert 'retrue_probation{model="flip"} 0.0' in api.client.get("/metrics").text
    row, _ = watched(api, 2)
    shown = api.client.get("/v1/models/flip").json()["probation"]
    assert (shown["version"], shown["previous_version"], shown["state"]) == (2, 1, "watching")
    assert (shown["began_event_time"], shown["until"]) == ("2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z")
    kept(api, row)
    assert api.client.get("/v1/models/flip").json()["probation"] is None
    assert api.client.get("/v1/models/flip/versions/1").json()["probation"] is None
    ended = api.client.get("/v1/models/flip/versions/2").json()["probation"]
    assert (ended["state"], ended["code"], ended["reason"]) == ("kept", "clean", "well")


def test_the_metric_says_that_a_champion_is_watched(api: Api) -> None:
    watched(api, 2)
    assert 'retrue_probation{model="flip"} 1.0' in api.client.get("/metrics").text


def test_a_champion_taken_back_by_hand_while_on_probation_is_quarantined_and_its_run_rolled_back(api: Api) -> None:
    _, run = watched(api, 2)
    with api.database.write() as conn:
        check = checks.create(conn, "flip", actor="t", at=AT, window_until=AT)
        checks.finish(conn, check.id, at=AT)
    answer = api.client.post("/v1/models/flip/rollback", json={"reason": "odd"})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert state(api, 2) is VersionState.QUARANTINED
    with api.database.read() as conn:
        ended, row = runs.get(conn, run.id), probations.of_run(conn, run.id)
        held = models.switches(conn, "flip")
        actions = [entry.action for entry in audit.list_of(conn)]
    assert (ended.state, ended.code, ended.decided_event_time) == (S.ROLLED_BACK, "rolled_back_by_person", AT)
    assert row is not None
    assert row.state is ProbationState.ENDED
    assert "hold" in held
    assert actions[:2] == ["probation_ended", "champion_rollback"]


def test_a_champion_that_was_kept_is_retired_by_a_rollback_and_can_be_gone_back_to(api: Api) -> None:
    row, run = watched(api, 2)
    kept(api, row)
    assert api.client.post("/v1/models/flip/rollback", json={}).json()["version"] == 1
    assert state(api, 2) is VersionState.RETIRED
    with api.database.read() as conn:
        assert runs.get(conn, run.id).state is S.SUCCEEDED
    assert api.client.post("/v1/models/flip/rollback", json={}).json()["version"] == 2


def test_a_rollback_goes_to_the_last_version_that_was_kept_and_can_answer(api: Api) -> None:
    row, _ = watched(api, 2)
    kept(api, row)
    third, _ = watched(api, 3, previous=2)
    with api.database.write() as conn:
        probations.give_way(
            conn, "flip", is_rollback=False, actor="t", reason="another one", at=AT, event_time=None
        )  # fmt: skip
    watched(api, 4, previous=2)  # version 3, the champion before it, was never kept
    assert api.client.post("/v1/models/flip/rollback", json={}).json()["version"] == 2
    assert third.version == 3
    with api.database.write() as conn:
        versions.set_state(conn, "flip", 1, VersionState.ARCHIVED)
    assert api.client.post("/v1/models/flip/rollback", json={}).status_code == 409
    for number in (1, 2, 4):  # its artifact is gone; it is the champion; it is quarantined
        refused = api.client.post("/v1/models/flip/rollback", json={"to": number})
        assert (refused.status_code, refused.json()["code"]) == (409, "not-allowed-now"), number
    assert api.client.post("/v1/models/flip/rollback", json={"to": 3}).json()["version"] == 3


def test_a_version_whose_artifact_is_gone_is_not_promoted(api: Api) -> None:
    with api.database.write() as conn:
        versions.insert(conn, pack(api.store, FLIP, flip(2), number=2))
        versions.set_state(conn, "flip", 2, VersionState.ARCHIVED)
    refused = api.client.put("/v1/models/flip/champion", json={"version": 2}, headers={"If-Match": '"1"'})
    assert (refused.status_code, "artifact is gone" in refused.json()["detail"]) == (409, True)
