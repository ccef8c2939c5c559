"""What rules and dashboards select by exists: labels that the metric has, values that the label can take.

A selector with a wrong word matches nothing, and nothing complains: the alert stays silent, the panel stays empty.
"""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from scripts.metrics import declared
from service.api.shapes import ClearName
from service.domain.gate import Outcome
from service.domain.run import RunState
from service.storage.champions import SwapKind
from service.telemetry import FAST, Declared

GRAFANA = Path(__file__).parents[2] / "grafana"
ENDINGS = ("_total", "_bucket", "_sum", "_count")
TARGET = {"job", "instance"}
"""What Prometheus adds to each sample."""
VALUES: dict[tuple[str, str], set[str]] = {
    ("retrue_switch", "switch"): set(get_args(ClearName)),
    ("retrue_swap_timestamp_seconds", "kind"): set(get_args(SwapKind)),
    ("retrue_runs", "state"): {state.value for state in RunState},
    ("retrue_run_waiting_since_timestamp_seconds", "state"): {state.value for state in RunState},
    ("retrue_gate_outcome", "outcome"): {outcome.value for outcome in Outcome},
    ("retrue_model_info", "role"): {"champion", "previous"},
    ("retrue_requests", "endpoint"): {"predict", "feedback"},
    ("retrue_requests", "outcome"): {"ok", "refused", "invalid_rows", "gone"},  # and codes of what it was not ready for
    ("retrue_request_seconds", "endpoint"): {"predict", "feedback"},
    ("retrue_request_seconds", "le"): {f"{bound:g}" for bound in FAST},
}
"""Of each label that is selected by value."""


def rules() -> list[dict[str, Any]]:
    found = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(GRAFANA.glob("prometheus/rules/*.yml"))
    ]
    return [rule for file in found for group in file["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Return each query with a name for it."""
    asked = [(str(rule.get("alert") or rule["record"]), str(rule["expr"])) for rule in rules()]
    for path in sorted(GRAFANA.glob("dashboards/*.json")):
        board = json.loads(path.read_text(encoding="utf-8"))
        for panel in board["panels"]:
            asked += [(f"{path.stem}: {panel['title']}", target["expr"]) for target in panel.get("targets", ())]
        asked += [(f"{path.stem}: {one['name']}", one["expr"]) for one in board["annotations"].get("list", ())]
    return asked


def metrics() -> dict[str, set[str]]:
    """Return the labels of everything that can be asked for."""
    found: dict[str, set[str]] = {}
    for one in declared():
        names = [one.name, *(f"{one.name}{ending}" for ending in ENDINGS)] if is_event(one) else [one.name]
        found |= {name: {*one.labels, "le"} if name.endswith("_bucket") else set(one.labels) for name in names}
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = {label for by in groupings(rule["expr"]) for label in by}
    return found


def is_event(one: Declared) -> bool:
    return one.kind in {"counter", "histogram"}


def groupings(expr: str) -> list[set[str]]:
    return [set(re.findall(r"\w+", by)) for by in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expr)]


def selectors(expr: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each metric that is selected by labels, with these and their values."""
    found = re.findall(r"((?:\w+:)?\bretrue_\w+(?::\w+)?)\{([^}]*)\}", expr)
    return [(name, re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inner)) for name, inner in found]


def asked_for(expr: str) -> set[str]:
    return set(re.findall(r"(?:\w+:)?\bretrue_\w+(?::\w+)?", expr))


@pytest.mark.parametrize(("name", "expr"), queries(), ids=[name for name, _ in queries()])
def test_a_query_selects_by_labels_that_the_metric_has_and_values_that_it_takes(name: str, expr: str) -> None:
    known = metrics()
    for metric, matchers in selectors(expr):
        assert {label for label, _ in matchers} <= known[metric] | TARGET, metric
        for label, value in matchers:
            if value != "$model":
                takes = VALUES[re.sub(r"_(total|bucket|sum|count)$", "", metric), label]
                assert set(value.split("|")) <= takes, (name, label)


@pytest.mark.parametrize(("name", "expr"), queries(), ids=[name for name, _ in queries()])
def test_a_query_groups_by_labels_that_what_it_asks_for_has(name: str, expr: str) -> None:
    known = metrics()
    has = {label for metric in asked_for(expr) for label in known[metric]} | TARGET
    assert [by - has for by in groupings(expr) if by - has] == [], name


def test_every_alert_of_a_model_fires_once_however_many_replicas_tell_of_it() -> None:
    # State metrics are the same at each replica: without a `max by` each of them would page somebody.
    states = {one.name for one in declared() if "model" in one.labels and one.kind == "gauge"}
    for rule in rules():
        if "alert" in rule:
            bare = re.sub(r"\b(?:max|min|sum) by \([^)]*\) \((?:[^()]|\([^()]*\))*\)", "", rule["expr"])
            assert asked_for(re.sub(r"(?:unless|and) on \(\w+\) retrue_\w+", "", bare)) & states == set(), rule["alert"]
