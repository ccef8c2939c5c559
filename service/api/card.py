"""A version's model card, out of its row alone: where it comes from, what it was compared with, why it may answer."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from service.api import plots
from service.api.page import Html, details, document, figure, joined, link, number, pairs, pill, section, table
from service.storage.champions import Champion
from service.storage.probations import ProbationRow
from service.storage.versions import VersionRow

__all__ = ["card"]

KINDS = {"pass": "good", "fail": "bad", "inconclusive": "wait"}
STATES = {"champion": "good", "approved": "good", "rejected": "bad", "quarantined": "bad", "candidate": "wait"}
NAMES = {"champion": "b", "challenger": "a"}


def card(row: VersionRow, *, champion: Champion | None, probation: ProbationRow | None) -> str:
    """Return the page of a version.

    Parameters
    ----------
    row
        Of any age: what an older Retrue did not record is left out.
    champion
        Of the model, now.
    probation
        The version's newest one.
    """
    lineage = row.lineage or {}
    evaluation = lineage.get("evaluation") or {}
    figures = evaluation.get("figures") or {}
    parts = [
        _head(row, lineage, evaluation, champion),
        _holdout(row, evaluation),
        _sides(row, figures),
        _gate(evaluation),
        _candidates(evaluation),
        _slices(figures),
        _calibration(figures),
        _old_regime(row, figures),
        _serves(row, lineage),
        _data(row, lineage),
        _lineage(row, lineage),
        _watched(probation),
    ]
    return document(f"{row.model} version {row.version}", *(part for part in parts if part is not None))


def _head(
    row: VersionRow, lineage: Mapping[str, Any], evaluation: Mapping[str, Any], champion: Champion | None
) -> Html:
    answers = champion is not None and champion.version == row.version
    gate = evaluation.get("gate") or {}
    trigger = lineage.get("trigger") or {}
    state = row.state.value
    pills = [pill(state, STATES.get(state, "wait"))]
    if answers and champion is not None:
        pills.append(pill(f"answers now, generation {champion.generation}", "good"))
    if gate:
        pills.append(pill(f"gate: {gate.get('outcome')}", KINDS.get(str(gate.get("outcome")), "wait")))
    if gate.get("unopposed"):
        pills.append(pill("unopposed", "wait"))
    why = (
        f"Made because {trigger['reason']} ({trigger.get('kind')}, asked by {trigger.get('actor')})." if trigger else ""
    )
    schema = row.manifest.get("schema") or {}
    what = (
        f"{schema.get('task', 'model')} · {len(schema.get('features', ()))} features · made {_moment(row.created_at)}"
    )
    return Html(
        f'<p class="soft">{joined(what)}</p><h1>{joined(row.model, "version", row.version)}</h1>'
        f"<p>{joined(*pills)}</p><p>{joined(why)}</p>"
        + (f"<p>{joined('The gate said:', gate.get('reason'))}</p>" if gate else "")
    )


def _holdout(row: VersionRow, evaluation: Mapping[str, Any]) -> Html | None:
    found = row.metrics or {}
    value, ends = found.get("value"), found.get("ci") or [None, None]
    if value is None:
        return section("Holdout", "There is no figure: nothing could be judged.")
    clauses = {clause["name"]: clause for clause in (evaluation.get("gate") or {}).get("clauses", ())}
    stretch = evaluation.get("holdout") or [None, None]
    facts = pairs(
        [
            (str(found.get("metric")), Html(f'<span class="big">{number(value)}</span>')),
            ("interval", None if ends[0] is None else f"{number(ends[0])} to {number(ends[1])}"),
            ("rows", number(found.get("n"))),
            ("from, to", f"{_moment(stretch[0])} to {_moment(stretch[1])}"),
            ("rows in a block", number(found.get("block"))),
        ]
    )
    drawing = Html("")
    if _are_numbers(value, *ends):
        floor = (clauses.get("floor") or {}).get("threshold")
        marks = [("floor", float(floor))] if floor is not None else []
        caption = "The judged fit on rows that it had not seen; block bootstrap."
        drawing = figure(plots.interval(ends[0], value, ends[1], marks=marks), caption)
    return section("Holdout", Html(f'<div class="grid">{facts}{drawing}</div>'))


def _sides(row: VersionRow, figures: Mapping[str, Any]) -> Html | None:
    paired = figures.get("paired")
    if not paired:
        words = "Nothing was compared: there was no champion, or too few rows that it had not learned from."
        return section("Champion and challenger", words) if row.parent is not None else None
    metric = str((row.metrics or {}).get("metric"))
    rows = [
        (f"challenger (version {row.version})", number(paired["challenger"])),
        (f"champion (version {row.parent})", number(paired["champion"])),
    ]
    low, high = paired["gain_ci"]
    facts = pairs(
        [
            ("same rows", number(paired["n"])),
            ("gain", f"{number(paired['gain'])}, {paired['confidence']:.1%} interval {number(low)} to {number(high)}"),
            ("mode", f"{paired['mode']}{', for the recipe was changed' if paired.get('changed') else ''}"),
            ("rows in a block", number(paired["block"])),
            ("champion's card", link(f"../{row.parent}/card", f"version {row.parent}")),
        ]
    )
    drawing = Html("")
    if _are_numbers(low, paired["gain"], high):
        lines = [("gain in loss", low, paired["gain"], high, "a")]
        drawing = figure(plots.intervals(lines, marks=[("", 0.0)]), "Right of nought the challenger is better.")
    return section(
        "Champion and challenger",
        Html(f'<div class="grid"><div>{table(["on the same rows", f"{metric}#"], rows)}{facts}</div>{drawing}</div>'),
    )


def _gate(evaluation: Mapping[str, Any]) -> Html | None:
    gate = evaluation.get("gate")
    if not gate:
        return None
    rows = [
        (
            pill(clause["outcome"], KINDS.get(clause["outcome"], "wait")),
            clause["name"],
            number(clause["value"]),
            number(clause["threshold"]),
            number(clause["n"]),
            clause["reason"],
        )
        for clause in gate["clauses"]
    ]
    return section("Gate", table(["", "clause", "value#", "threshold#", "n#", "reason~"], rows))


def _candidates(evaluation: Mapping[str, Any]) -> Html | None:
    found = evaluation.get("candidates") or []
    if not found:
        return None
    rows = [
        (
            pill("chosen", "good") if one.get("chosen") else "",
            one["window"],
            one.get("weighting", "none"),
            number(one["rows"]),
            number(one.get("effective_rows")),
            number(one["loss"]),
            "; ".join(word for word in (one.get("note"), *(one.get("warnings") or ())) if word) or "",
        )
        for one in found
    ]
    best = next((place for place, one in enumerate(found) if one.get("chosen")), None)
    heads = ["", "history", "weighting", "rows#", "effective#", "loss#", "note~"]
    words = Html('<p class="soft">The same recipe, fitted on each of these histories; the holdout chose.</p>')
    return section("Candidates", words, table(heads, rows, best=best))


def _slices(figures: Mapping[str, Any]) -> Html | None:
    found = figures.get("slices") or []
    if not found:
        return None
    rows = [
        (
            pill("worse", "bad") if one["harmed"] else "" if one["p"] is not None else pill("few rows", "wait"),
            one["slice"], number(one["n"]), number(one["champion"]), number(one["challenger"]), number(one["gain"]),
            "–" if one["low"] is None else f"{number(one['low'])} to {number(one['high'])}",
        )
        for one in found
    ]  # fmt: skip
    lines = [
        (f"{one['slice']} ({one['n']})", one["low"], one["gain"], one["high"], "bad" if one["harmed"] else "a")
        for one in found
        if _are_numbers(one["low"], one["gain"], one["high"])
    ][:30]
    drawing = Html("")
    if lines:
        drawing = figure(plots.intervals(lines, marks=[("", 0.0)]), "Gain of each slice; right of nought is better.")
    heads = ["", "slice", "rows#", "champion's loss#", "challenger's#", "gain#", "interval#"]
    return section("Slices", table(heads, rows), drawing)


def _calibration(figures: Mapping[str, Any]) -> Html | None:
    found = figures.get("calibration") or {}
    if "error" in found:
        return section("Calibration", f"It could not be drawn: {found['error']}")
    curves = [(who, style, found[who]) for who, style in reversed(NAMES.items()) if found.get(who)]
    if not curves:
        return None
    if found.get("kind") == "reliability":
        words = [f"{who}: expected calibration error {number(one['error'], 3)}" for who, _, one in curves]
        caption = f"Probability of {curves[0][2].get('of')}; bars: 95 % interval. {'; '.join(words)}."
        return section("Calibration", figure(plots.reliability(curves), caption))
    words = [f"{who}: mean error {number(one['bias'], 3)}" for who, _, one in curves]
    caption = f"Bins of equally many rows; bars: 10 to 90 % of what was observed. {'; '.join(words)}."
    return section("Predicted against observed", figure(plots.observed(curves), caption))


def _old_regime(row: VersionRow, figures: Mapping[str, Any]) -> Html | None:
    old = figures.get("old_regime")
    if not old:
        return None
    metric = str((row.metrics or {}).get("metric"))
    rows = [(who, number(old[who])) for who in ("challenger", "champion", "trivial")]
    learned = "has learned from them" if old.get("learned") else "has not learned from them"
    words = f"The oldest {old['n']} rows, {_moment(old['after'])} to {_moment(old['until'])}; the challenger {learned}."
    return section("What it has kept of the oldest rows", words, table(["", f"{metric}#"], rows))


def _serves(row: VersionRow, lineage: Mapping[str, Any]) -> Html:
    told = (lineage.get("artifact") or {}).get("compiled") or row.manifest.get("compiled") or {}
    why = told.get("reason") or next((told[name] for name in ("refused", "unavailable") if name in told), None)
    is_proved = row.compiled == "proved"
    estimator = row.manifest.get("estimator") or {}
    artifact = lineage.get("artifact") or {}
    facts = pairs(
        [
            ("answers by", "a compiled graph (ONNX), proved equal" if is_proved else "scikit-learn"),
            ("why", why or (None if is_proved else "it was not compiled")),
            ("estimator", estimator.get("class")),
            ("file", f"{row.artifact} ({number(artifact.get('bytes'))} bytes)"),
            ("graph", told.get("sha256")),
            ("libraries", ", ".join(f"{k} {v}" for k, v in (row.manifest.get("libraries") or {}).items()) or None),
        ]
    )
    return section("What serves", facts, details("parameters", str(estimator.get("params", "–"))))


def _data(row: VersionRow, lineage: Mapping[str, Any]) -> Html | None:
    data = lineage.get("data")
    if not data:
        return None
    quality = data.get("quality") or {}
    verdict = str(quality.get("verdict", "not recorded"))
    looked = "" if not quality else f"newest {number(quality.get('rows'))} rows looked at"
    summary = link(f"/v1/runs/{quote(row.run_id)}/data-summary", "data summary") if row.run_id else None
    tables = [
        (str(one.get("kind")), number(one.get("version")), number(one.get("rows"))) for one in data.get("tables") or ()
    ]
    facts = pairs(
        [
            ("data quality", joined(pill(verdict, "good" if verdict == "clean" else "wait"), looked)),
            ("rows", number(data.get("used_rows"))),
            ("until", _moment(data.get("until"))),
            ("stretches left out", number(len(data.get("excluded") or ()))),
            ("digest", data.get("digest")),
            ("drawn", summary),
        ]
    )
    return section("Data", facts, table(["table", "version#", "rows#"], tables) if tables else Html(""))


def _lineage(row: VersionRow, lineage: Mapping[str, Any]) -> Html | None:
    if not lineage:
        return None
    code, training, time = (lineage.get(name) or {} for name in ("code", "training", "time"))
    commit = code.get("commit")
    trigger = lineage.get("trigger") or {}
    check = trigger.get("check")
    evidence = f"/v1/models/{quote(row.model)}/checks/{quote(str(check))}/report"
    facts = pairs(
        [
            ("run", link(f"/v1/runs/{quote(row.run_id)}", row.run_id) if row.run_id else None),
            ("attempt", lineage.get("attempt")),
            ("champion then", None if row.parent is None else link(f"../{row.parent}/card", f"version {row.parent}")),
            ("evidence", link(evidence, f"check {check}") if check else None),
            ("history", training.get("window")),
            ("rows learned from", number(training.get("fit_rows"))),
            ("learned until", _moment(row.learned_until)),
            ("seed", training.get("seed")),
            ("asked", _moment(time.get("requested"))),
            ("packaged", _moment(time.get("packaged"))),
            ("commit", None if commit is None else f"{commit}{' (files differ)' if code.get('dirty') else ''}"),
            ("model file", code.get("model_file")),
            ("Retrue", code.get("retrue")),
        ]
    )
    parameters = json.dumps(training.get("parameters") or {}, indent=1, sort_keys=True, ensure_ascii=False)
    return section("Lineage", facts, details("parameters of the fit", parameters))


def _watched(probation: ProbationRow | None) -> Html | None:
    if probation is None:
        return None
    kind = {"kept": "good", "rolled_back": "bad"}.get(probation.state.value, "wait")
    facts = pairs(
        [
            ("state", pill(probation.state.value, kind)),
            ("against", f"version {probation.previous_version}"),
            ("began", _moment(probation.began_event_time or probation.began_at)),
            (
                "ended",
                None if probation.ended_at is None else _moment(probation.ended_event_time or probation.ended_at),
            ),
            ("why", probation.reason),
        ]
    )
    return section("Probation", facts)


def _moment(value: Any) -> str:
    text = value.isoformat() if hasattr(value, "isoformat") else str(value or "–")
    return f"{text[:16].replace('T', ' ')} UTC" if len(text) > 16 else text


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)
