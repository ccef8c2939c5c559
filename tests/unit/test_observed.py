"""What watches the service is whole: a table of metrics, alerts with cases and runbooks, dashboards as made."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.make import FOLDER, dashboards
from scripts.metrics import PAGE, declared, text

ROOT = Path(__file__).parents[2]
RULES = ROOT / "grafana" / "prometheus" / "rules"
CASES = ROOT / "grafana" / "prometheus" / "tests"
COUNTED = ("_total", "_bucket", "_sum", "_count")
UNBOUNDED = {"id", "run", "check", "generation", "worker", "path", "key", "actor", "instance"}
"""Labels whose values could grow for ever, or with the fleet."""


def rules() -> list[dict[str, Any]]:
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in found for group in file["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def boards() -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def test_the_table_of_metrics_is_what_their_declarations_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == text(), "make it again with python -m scripts.metrics"


def test_every_metric_has_a_unit_a_meaning_and_a_name_of_its_own() -> None:
    metrics = declared()
    assert [one.name for one in metrics if not one.measure or not one.help.endswith((".", "!"))] == []
    names = [one.name for one in metrics]
    assert sorted(names) == sorted(set(names))


def test_no_label_but_those_of_workers_and_of_the_one_info_gauge_can_grow_for_ever() -> None:
    growing = {one.name: set(one.labels) & (UNBOUNDED | {"version"}) for one in declared()}
    assert {name: labels for name, labels in growing.items() if labels} == {
        "retrue_model_info": {"version"},
        "retrue_serving_generation": {"worker"},
    }


def test_rules_and_dashboards_ask_for_metrics_that_exist(boards: dict[str, dict[str, Any]]) -> None:
    asked = [rule["expr"] for rule in rules()]
    for board in boards.values():
        asked += [target["expr"] for panel in panels(board) for target in panel["targets"]]
        asked += [one["expr"] for one in board["annotations"].get("list", ()) if "expr" in one]
    known = {one.name for one in declared()} | {rule["record"] for rule in rules() if "record" in rule}
    known |= {f"{one.name}{ending}" for one in declared() for ending in COUNTED}
    names = {name for expr in asked for name in re.findall(r"(?:\w+:)?\bretrue_\w+(?::\w+)?", expr)}
    assert len(names) > 40
    assert names - known == set()


def test_every_alert_has_a_case_that_fires_and_one_that_stays_silent() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for path in CASES.glob("*.yml"):
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for one in case["alert_rule_test"]:
                (fires if one["exp_alerts"] else silent).add(one["alertname"])
    assert len(alerts()) >= 14
    assert fires == set(alerts())
    assert silent == set(alerts())


def test_every_alert_says_how_urgent_it_is_and_links_to_a_runbook_that_exists() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"]["summary"], name
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / page), (name, anchor)


def test_what_the_runbook_tells_to_run_set_or_look_at_exists() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### ([^\n]+)\n(`retrue .+?)(?=^##|\Z)", reference, flags=re.MULTILINE | re.DOTALL))
    told = [re.split(r"\s+", words) for words in re.findall(r"`retrue\s+([^`]+)`", page)]
    assert len(told) > 10
    for words in told:
        verb = " ".join(words[:2]) if " ".join(words[:2]) in sections else words[0]
        rest = words[len(verb.split()) :]
        options = [word for word in rest if word.startswith("-")]
        assert all(f"`{option}`" in sections[verb] for option in options), words
        takes = sections[verb].partition("\n")[0].strip("`").split()[1 + len(verb.split()) :]
        assert len(rest) - 2 * len(options) <= len(takes), words
    settings = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"RETRUE_\w+", page) if name not in settings} == set()
    known = {one.name for one in declared()} | {f"{one.name}_total" for one in declared()}
    assert set(re.findall(r"`(retrue_\w+)", page)) - known == set()


def test_the_dashboards_are_what_their_script_makes(boards: dict[str, dict[str, Any]]) -> None:
    assert {f"{name}.json" for name in boards} == set(dashboards())
    for name, made in dashboards().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == made, "make them again with python -m grafana.make"


def test_every_panel_says_what_it_shows_in_which_unit_and_what_is_too_much(boards: dict[str, dict[str, Any]]) -> None:
    for board in boards.values():
        assert len(panels(board)) >= 10
        for panel in panels(board):
            defaults = panel["fieldConfig"]["defaults"]
            assert panel["description"], panel["title"]
            assert defaults["unit"], panel["title"]
            assert defaults["thresholds"]["steps"], panel["title"]
            assert panel["targets"], panel["title"]


def test_dashboards_name_no_model_and_no_data_source(boards: dict[str, dict[str, Any]]) -> None:
    for board in boards.values():
        assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "model"]
        plain = json.dumps(board)
        assert not re.search(r'model=~?\\"(?!\$model)', plain)
        assert not re.search(r'"uid": "(?!\$\{datasource\}|retrue-)', plain)


def test_panels_fill_the_width_of_a_screen_and_do_not_overlap(boards: dict[str, dict[str, Any]]) -> None:
    for name, board in boards.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, (name, panel.get("title"))
            assert panel["type"] == "row" or place["w"] >= 4, (name, panel["title"])
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, (name, panel.get("title"))
            taken |= cells
