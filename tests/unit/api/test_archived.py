"""A version whose artifact was swept can't answer again, and the request for it says so."""

from service.domain.version import VersionState
from service.storage import versions
from tests.served import FLIP, crown, flip, pack
from tests.unit.api.conftest import Api

MODEL = "/v1/models/flip"


def test_an_archived_version_is_neither_promoted_nor_gone_back_to(api: Api) -> None:
    for number in (2, 3):
        crown(api.database, pack(api.store, FLIP, flip(0), number=number))
    with api.database.write() as conn:
        for number in (1, 2):
            versions.set_state(conn, "flip", number, VersionState.ARCHIVED)
    promoted = api.client.put(f"{MODEL}/champion", json={"version": 1}, headers={"If-Match": '"3"'})
    named = api.client.post(f"{MODEL}/rollback", json={"to": 2})
    for response in (promoted, named):
        assert response.status_code == 409
        assert "archived" in response.json()["detail"]
        assert "artifact is gone" in response.json()["detail"]
    unnamed = api.client.post(f"{MODEL}/rollback", json={})
    assert unnamed.status_code == 409  # nothing is left to go back to
    assert api.client.get(MODEL).json()["champion"]["version"] == 3
