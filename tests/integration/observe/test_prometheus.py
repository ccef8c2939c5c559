"""A real service, real traffic and a real Prometheus: every panel, every annotation and every rule finds its data."""

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.client import Retrue
from service.replay import Pace, Replay, rows_of
from tests.launched import Launched, launched, until
from tests.prometheus import Prometheus, program, prometheus

pytestmark = pytest.mark.timeout(900)  # weeks are replayed, and the machine may be busy

ROOT = Path(__file__).parents[3]
BOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
MODEL = """
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.spec import Drift, Feature, Gate, ModelSpec, Retrain, Training

spec = ModelSpec(
    name="flip", task="classification", target="outcome", timestamp="at", metric="accuracy", source="data/flip.csv",
    features=[Feature("a", low=-10, high=10), Feature("b"), Feature("weekend", kind="boolean")],
    build=lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    training=Training(initial="28d", windows=("7d",), holdout="8d", min_rows=100), drift=Drift(window="7d"),
    retrain=Retrain(cooldown="7d", retry="7d", backoff=1, min_labels=50), gate=Gate(min_rows=50),
)
"""
DAY = 24
TURNED = 35 * DAY
"""From this hour on the outcome means the other thing."""
SOUND, ALL = 56 * DAY, 64 * DAY
"""Up to here rows are sound; up to there they are broken."""
RARE = {
    "retrue_predictions_unrecorded": "the disk was never full",
    "retrue_record_failures": "the disk was never full",
    "retrue_compiled_fallbacks": "each version was proved",
    "retrue_swaps_late": "no worker hung",
    "retrue_restarts": "no child died",
    "retrue_webhooks": "nobody is to be told",
    "retrue_probations": "a person's rollback ended the only one before it came to a verdict",
    "retrue_probation_rollback_timestamp_seconds": "the rollback was a person's",
    "retrue_run_waiting_since_timestamp_seconds": "labels came and nobody's approval is asked for",
    "retrue_drift_alarms": "only what the columns mean has changed, and broken data are no drift",
    "retrue_drift_expected_alarms_90d": "a reference of three weeks is not calibrated",
}
"""What need not have been told after these weeks, and why."""


def write_project(home: Path) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    at = pd.date_range("2026-01-01", periods=ALL, freq="h", tz="UTC")
    a, b = rng.normal(size=ALL), rng.normal(size=ALL)
    sign = np.where(np.arange(ALL) < TURNED, 1.0, -1.0)
    outcome = np.where(sign * (a + 0.5 * b) + rng.normal(scale=0.5, size=ALL) > 0, "yes", "no")
    frame = pd.DataFrame({"at": at, "a": a, "b": b, "weekend": at.dayofweek >= 5, "outcome": outcome})
    frame.loc[SOUND:, "a"] = 999.0
    for folder in ("models", "data"):
        (home / folder).mkdir(parents=True)
    (home / "models" / "flip.py").write_text(MODEL)
    frame.iloc[:SOUND].to_csv(home / "data" / "flip.csv", index=False)
    return frame


@dataclass
class Watched:
    """A service under a Prometheus, after some weeks."""

    service: Launched
    prometheus: Prometheus
    began: float

    def values(self, expr: str) -> list[float]:
        """Return what a dashboard's query finds, of all that happened."""
        asked = expr.replace("$__rate_interval", "20s").replace("$model", "flip")
        found = self.prometheus.values(asked, start=self.began, end=time.time())
        return [value for value in found if math.isfinite(value)]


def has_champion(client: Retrue, version: int) -> bool:
    champion = client.model("flip").get("champion") if client.models() else None
    return champion is not None and champion["version"] >= version


def replayed(url: str, rows: pd.DataFrame) -> None:
    stream = rows_of(rows, timestamp="at", target="outcome", features=["a", "b", "weekend"])
    pace = Pace(lead=pd.Timedelta("12h").to_pytimedelta(), batch=6, patience_s=600)
    totals = Replay(url, "flip", stream, pace=pace, answered=lambda _: None).run()
    assert totals.failed == 0, totals.errors


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program("prometheus")  # before minutes are spent on the service
    folder = tmp_path_factory.mktemp("watched")
    frame = write_project(folder / "home")
    with launched(folder / "home", role="serve", workers=2, ready=False) as service:
        host, port = service.address
        url = f"http://{host}:{port}"
        with prometheus(folder / "prometheus", {"targets": [f"{host}:{port}"]}) as server, Retrue(url) as client:
            one = Watched(service, server, time.time())
            until(service.is_ready, within_s=300, what="ready")
            until(partial(has_champion, client, 1), within_s=300, what="version 1")
            learned = client.learned_until("flip")
            replayed(url, frame[(frame["at"] > learned) & (frame.index < SOUND)])
            until(partial(has_champion, client, 2), within_s=300, what="a promotion")
            assert (
                service.request("POST", "/v1/models/flip/predict", json={"instances": [{"a": "x"}]}).status_code == 422
            )
            client.rollback("flip", reason="test")
            replayed(url, frame.iloc[SOUND:])
            # As dashboards ask: at steps since the beginning, of which the newest may lie before a scrape.
            asked = 'max(retrue_switch{switch="quarantine"}) == 1'
            until(lambda: one.values(asked), within_s=300, what="a quarantine that was scraped")
            yield one


@pytest.mark.parametrize("board", BOARDS, ids=[board.stem for board in BOARDS])
def test_every_panel_of_every_dashboard_finds_data(watched: Watched, board: Path) -> None:
    empty = [
        (panel["title"], target["expr"])
        for panel in json.loads(board.read_text(encoding="utf-8"))["panels"]
        for target in panel.get("targets", ())
        if not watched.values(target["expr"])
    ]
    assert empty == []


@pytest.mark.parametrize("board", BOARDS, ids=[board.stem for board in BOARDS])
def test_every_annotation_marks_what_happened_and_every_variable_has_its_values(watched: Watched, board: Path) -> None:
    content = json.loads(board.read_text(encoding="utf-8"))
    marks = {one["name"]: watched.values(one["expr"]) for one in content["annotations"].get("list", ())}
    assert [name for name, values in marks.items() if not max(values, default=0) > 0] == []
    for one in content["annotations"].get("list", ()):
        if one["useValueForTime"]:  # then the value is the moment, in milliseconds
            assert all(watched.began - 600 < value / 1000 < time.time() for value in marks[one["name"]])
    (variable,) = [one for one in content["templating"]["list"] if one["type"] == "query"]
    metric = re.fullmatch(r"label_values\((\w+), model\)", variable["query"])
    assert metric is not None
    assert watched.prometheus.get("label/model/values", **{"match[]": metric[1]}) == ["flip"]


def test_every_recording_rule_finds_data(watched: Watched) -> None:
    rules = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    assert len(recorded) > 15
    assert {name for name in recorded if not watched.values(name)} == set()


def test_every_rule_is_evaluated_and_what_happened_fires(watched: Watched) -> None:
    rules = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 30
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    until(lambda: "RetrueQuarantine" in firing(watched), what="the alert")
    # When the outcome came to mean the other thing.
    assert watched.values('ALERTS{alertname="RetruePerformanceDown", alertstate="firing"}')
    # A rollback, a broken week and what is late on a busy machine may be told; nothing of the service itself.
    assert (
        firing(watched) & {"RetrueDown", "RetrueDatabaseAway", "RetrueSchedulerSilent", "RetrueSpoolGrowing"} == set()
    )


def firing(watched: Watched) -> set[str]:
    alerts = watched.prometheus.get("alerts")["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def table() -> dict[str, tuple[str, set[str], str]]:
    """Return type, labels and meaning of each metric, as docs/metrics.md has them."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| .*? \| (.*) \|$", page, flags=re.MULTILINE)
    return {
        name.removesuffix("_total"): (kind, set(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in rows
    }


def test_what_was_scraped_is_what_the_table_says_with_these_types_and_labels(watched: Watched) -> None:
    known = table()
    assert len(known) > 90
    counted = {f"{name}_total": name for name in known} | {
        f"{name}{ending}": name for name in known for ending in ("_bucket", "_sum", "_count")
    }
    names = {counted.get(name, name) for name in watched.prometheus.get("label/__name__/values")}
    told = {name for name in names if name.startswith("retrue_")}
    assert told - set(known) == set()
    assert set(known) - told - set(RARE) == set()
    text = watched.service.request("GET", "/metrics").text
    families: dict[str, Any] = {family.name: family for family in text_string_to_metric_families(text)}
    for name, family in families.items():
        kind, labels, meaning = known[name]
        assert (family.type, family.documentation) == (kind, meaning), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, sample
    assert len(re.findall(r"^# TYPE", text, flags=re.MULTILINE)) == len(families)


def test_a_scrape_is_sound_to_prometheus_own_lint(watched: Watched) -> None:
    text = watched.service.request("GET", "/metrics").text
    lint = [program("promtool"), "check", "metrics"]
    done = subprocess.run(lint, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
