"""A model card stands on its own, says what is stored, and nothing in it can run."""

import gzip
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from sqlalchemy import update
from typing_extensions import override

from service.api.card import card
from service.domain.probation import ProbationState
from service.domain.version import VersionState
from service.storage import tables
from service.storage.champions import Champion
from service.storage.probations import ProbationRow
from service.storage.versions import VersionRow
from tests.unit.api.conftest import Api

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert('x')</script>\"&"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Tags(HTMLParser):
    """Balances tags, and keeps those that a page may not have."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []
        self.text: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        found = dict(attrs)
        assert not [name for name in found if name.startswith("on")]
        self.addresses += [found[name] for name in ("href", "src") if found.get(name)]
        if tag not in VOID:
            self.open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    @override
    def handle_data(self, data: str) -> None:
        self.text.append(data)


def clause(name: str, outcome: str = "pass", value: float | None = 1.0) -> dict[str, Any]:
    return {"name": name, "value": value, "threshold": 0.5, "n": 300, "outcome": outcome, "reason": f"why {HOSTILE}"}


def curve(shift: float) -> dict[str, Any]:
    points = [
        {"said": i / 10, "came": min(i / 10 + shift, 1), "low": i / 10, "high": min(i / 10 + 0.2, 1), "n": 30}
        for i in range(1, 10)
    ]
    return {"points": points, "error": shift, "bias": shift, "of": HOSTILE, "n": 270, "rows": [[1.0, 2.0], [3.0, 2.5]]}


def a_slice(name: str, harmed: bool) -> dict[str, Any]:
    return {
        "slice": name, "n": 100, "champion": 0.2, "challenger": 0.3, "gain": -0.1, "low": -0.2, "high": -0.05,
        "p": 0.01, "harmed": harmed,
    }  # fmt: skip


def an_evaluation(kind: str = "reliability") -> dict[str, Any]:
    thin = a_slice("night", harmed=False) | {"low": None, "high": None, "p": None, "n": 3}
    return {
        "gate": {
            "outcome": "fail", "reason": HOSTILE, "unopposed": False,
            "clauses": [clause("rows"), clause("floor", "inconclusive"), clause("slices", "fail", None)],
        },
        "candidates": [
            {"window": "56d", "rows": 900, "loss": 0.25, "chosen": True, "note": "", "warnings": [HOSTILE]},
            {
                "window": "all, half-life 112d", "rows": 5000, "loss": 0.26, "chosen": False, "note": HOSTILE,
                "weighting": "half-life 112d", "effective_rows": 2100, "warnings": [],
            },
        ],
        "holdout": ["2026-02-01T00:00:00+00:00", "2026-02-15T00:00:00+00:00"],
        "figures": {
            "paired": {
                "n": 300, "champion": 0.7, "challenger": 0.8, "gain": 0.1, "gain_ci": [0.02, 0.18],
                "confidence": 0.8, "block": 3, "mode": "improve", "changed": True,
            },
            "slices": [a_slice(HOSTILE, harmed=True), a_slice("day", harmed=False), thin],
            "calibration": {"kind": kind, "challenger": curve(0.05), "champion": curve(0.15)},
            "old_regime": {
                "n": 200, "after": "2025-01-01T00:00:00+00:00", "until": "2025-01-15T00:00:00+00:00",
                "champion": 0.7, "challenger": 0.6, "trivial": 0.5, "learned": False, "forgotten": 0.1,
            },
        },
    }  # fmt: skip


def a_lineage(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run": "run-1", "attempt": 2, "parent": 6, "evaluation": an_evaluation(),
        "trigger": {"kind": "performance", "actor": "controller", "reason": HOSTILE, "check": "check-1"},
        "time": {"requested": AT.isoformat(), "packaged": AT.isoformat()},
        "code": {"commit": "abc", "dirty": True, "model_file": "d" * 64, "retrue": "1"},
        "data": {
            "digest": "e" * 64, "used_rows": 5300, "until": AT.isoformat(), "excluded": [["a", "b"]],
            "quality": {"verdict": "clean", "rows": 168, "excluded": 1},
            "tables": [{"kind": "predictions", "version": 4, "rows": 5300}],
        },
        "training": {"window": "56d", "fit_rows": 1200, "seed": 0, "parameters": {HOSTILE: HOSTILE}},
        "artifact": {"bytes": 12345, "compiled": {"outcome": "refused", "reason": HOSTILE}},
    }  # fmt: skip
    return {**values, **changes}


def a_row(**changes: Any) -> VersionRow:
    values: dict[str, Any] = {
        "model": "flip",
        "version": 7,
        "state": VersionState.CHAMPION,
        "run_id": "run-1",
        "parent": 6,
        "artifact": "f" * 64,
        "manifest": {
            "schema": {"task": "classification", "features": [{"name": HOSTILE}]},
            "estimator": {"class": HOSTILE, "params": HOSTILE},
            "libraries": {"scikit-learn": "1.7"},
            "compiled": {"refused": HOSTILE},
        },
        "lineage": a_lineage(),
        "metrics": {"metric": "accuracy", "value": 0.8, "loss": 0.2, "n": 300, "ci": [0.75, 0.85], "block": 3},
        "reference": {},
        "learned_until": AT,
        "created_at": AT,
    }
    return VersionRow(**{**values, **changes})


def a_champion(version: int = 7) -> Champion:
    return Champion(
        model="flip", version=version, generation=3, previous_version=6, changed_at=AT, changed_by="me", reason="r"
    )


def a_probation() -> ProbationRow:
    return ProbationRow(
        model="flip", generation=3, version=7, previous_version=6, run_id="run-1", state=ProbationState.KEPT,
        began_at=AT, began_event_time=AT, extended=0, evidence=None, code="clean", reason=HOSTILE, ended_at=AT,
        ended_event_time=AT,
    )  # fmt: skip


def parsed(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    return tags


EVERY = [
    "Holdout", "Champion and challenger", "Gate", "Candidates", "Slices", "Calibration",
    "What it has kept of the oldest rows", "What serves", "Data", "Lineage", "Probation",
]  # fmt: skip


def test_a_card_holds_every_part_with_its_figures() -> None:
    page = card(a_row(), champion=a_champion(), probation=a_probation())
    text = " ".join(parsed(page).text)
    for heading in EVERY:
        assert f"<h2>{heading}</h2>" in page
    for words in (
        "answers now, generation 3", "all, half-life 112d", "2,100", "for the recipe was changed", "night", "clean",
        "0.75 to 0.85", "version 6", "has not learned from them", "scikit-learn 1.7", "e" * 64,
    ):  # fmt: skip
        assert words in text


def test_whatever_a_name_is_nothing_in_a_card_runs_or_comes_from_elsewhere() -> None:
    page = card(a_row(), champion=None, probation=a_probation())
    tags = parsed(page)
    assert "<script" not in page.lower()
    assert HOSTILE in " ".join(tags.text)
    assert not tags.seen & {"script", "iframe", "object", "embed", "link", "img", "form", "base"}
    assert all(address.startswith(("/v1/", "../")) for address in tags.addresses)
    assert "url(" not in page
    assert "@import" not in page


def test_a_regression_is_drawn_as_predicted_against_observed() -> None:
    lineage = a_lineage(evaluation=an_evaluation("predicted_against_observed"))
    page = card(a_row(lineage=lineage), champion=None, probation=None)
    parsed(page)
    assert "<h2>Predicted against observed</h2>" in page
    assert "<h2>Probation</h2>" not in page


@pytest.mark.parametrize(
    "changes",
    [
        {"lineage": {}, "metrics": {}, "manifest": {}, "run_id": None, "parent": None},
        {"lineage": {"evaluation": {"gate": {"outcome": "fail", "reason": "r", "clauses": []}}}},
        {"metrics": {"metric": "accuracy", "value": None, "loss": None, "n": 0, "ci": [None, None]}},
        {"lineage": a_lineage(evaluation={"figures": {"calibration": {"error": HOSTILE}}})},
    ],
)
def test_a_version_of_which_less_is_known_has_a_shorter_card(changes: dict[str, Any]) -> None:
    parsed(card(replace(a_row(), **changes), champion=a_champion(9), probation=None))


def test_the_api_serves_a_card_that_may_run_nothing(api: Api) -> None:
    with api.database.write() as conn:
        where = (tables.versions.c.model == "flip") & (tables.versions.c.version == 1)
        conn.execute(update(tables.versions).where(where).values(lineage=a_lineage()))
    page = api.client.get("/v1/models/flip/versions/1/card")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "allow-scripts" not in policy
    assert "answers now, generation 1" in " ".join(parsed(page.text).text)
    assert api.client.get("/v1/models/flip/versions/99/card").status_code == 404
    assert api.client.get("/v1/models/nobody/versions/1/card").status_code == 404


def test_the_api_serves_a_runs_data_summary_from_the_reports_alone(api: Api) -> None:
    run = api.client.post("/v1/models/flip/runs", json={}).json()["id"]
    address = f"/v1/runs/{run}/data-summary"
    assert api.client.get(address).status_code == 404
    folder = api.home / "reports" / "flip"
    folder.mkdir(parents=True)

    (folder / f"data-{run}.html.gz").write_bytes(gzip.compress(b"<p>rows</p>"))
    for accepted in ("gzip", "identity"):
        page = api.client.get(address, headers={"Accept-Encoding": accepted})
        assert (page.status_code, page.text) == (200, "<p>rows</p>")
        assert page.headers["content-security-policy"] == "sandbox allow-scripts; frame-ancestors 'none'"
    assert api.client.get("/v1/runs/nobody/data-summary").status_code == 404
