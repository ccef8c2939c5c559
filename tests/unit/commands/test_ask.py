"""Verbs of an application: rows and labels out of files, batch by batch."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from service.commands.rows import Format, guess, read_rows, types_of
from tests.commanded import Command, Wire
from tests.served import FLIP, instance

ROWS = [instance(a=step / 3, n=None if step % 2 else 0.5, zone=1 + step % 3, on=step % 2 == 0) for step in range(5)]


def as_csv(rows: list[dict[str, Any]]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, rows[0].keys())
    writer.writeheader()
    writer.writerows([{name: "" if value is None else value for name, value in row.items()} for row in rows])
    return sink.getvalue()


FORMS = {
    "rows.json": json.dumps(ROWS, indent=1),
    "wrapped.json": json.dumps({"instances": ROWS}),
    "columns.json": json.dumps({"columns": {name: [row[name] for row in ROWS] for name in FLIP.names}}),
    "lists.json": json.dumps([[row[name] for name in FLIP.names] for row in ROWS]),
    "rows.jsonl": "\n\n".join(json.dumps(row) for row in ROWS) + "\n",
    "lists.jsonl": "\n".join(json.dumps([row[name] for name in FLIP.names]) for row in ROWS),
    "rows.csv": "\ufeff" + as_csv(ROWS),
}


@pytest.mark.parametrize("through_stdin", [False, True])
@pytest.mark.parametrize("name", sorted(FORMS))
def test_every_form_of_the_same_rows_gets_the_same_answer(name: str, through_stdin: bool, looking: Command) -> None:
    (looking.folder / name).write_text(FORMS[name], encoding="utf-8")
    wanted = looking("predict", "flip", "-", "--json", stdin=FORMS["rows.json"]).json["predictions"]
    words = ["-"] if through_stdin else [name]
    ran = looking("predict", "flip", *words, "--json", stdin=FORMS[name] if through_stdin else "")
    assert (ran.code, ran.err) == (0, ""), ran.err
    found = ran.json["predictions"]
    assert [row["prediction"] for row in found] == [row["prediction"] for row in wanted]
    assert [row["probabilities"] for row in found] == [row["probabilities"] for row in wanted]
    assert [row["row"] for row in found] == [0, 1, 2, 3, 4]
    assert len({row["id"] for row in found + wanted}) == 10


def test_predictions_are_shown_to_people_with_their_ids(looking: Command) -> None:
    ran = looking("predict", "flip", stdin=FORMS["rows.csv"])
    lines = ran.out.splitlines()
    assert lines[0].split() == ["row", "prediction", "probability", "version", "id"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]


def test_a_row_that_breaks_the_schema_is_named_by_its_place_in_the_input_and_the_rest_stays_answered(
    looking: Command,
) -> None:
    rows = [*ROWS[:3], instance(a="much"), *ROWS[4:]]
    ran = looking("predict", "flip", "--batch", "2", "--json", stdin=json.dumps(rows))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "row 4, a: must be a number" in ran.err
    assert "2 of 5 rows were answered" in ran.err
    assert [row["row"] for row in ran.json["predictions"]] == [0, 1]
    assert "row 4" in ran.json["error"]


def test_a_cell_that_fits_no_type_is_named_by_the_service(looking: Command) -> None:
    ran = looking("predict", "flip", stdin="a,b,n,on,zone\n0.5,1,,maybe,2\n")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "row 1, on: must be true or false" in ran.err


def test_a_model_without_a_champion_is_exit_3(looking: Command) -> None:
    ran = looking("predict", "price", stdin='{"f0": 1}')
    assert (ran.code, ran.err.count("\n")) == (3, 1)


def test_ctrl_c_between_batches_prints_what_was_answered(wire: Wire, retrue: Command) -> None:
    seen: list[httpx.Request] = []

    def before(request: httpx.Request) -> None:
        if request.method == "POST":
            seen.append(request)
            if len(seen) == 2:
                raise KeyboardInterrupt

    wire.before = before
    ran = retrue("predict", "flip", "--batch", "2", "--json", stdin=FORMS["rows.json"])
    assert (ran.code, len(ran.json["predictions"])) == (130, 2)
    assert "2 of 5 rows were answered, and are recorded" in ran.err


def test_a_key_that_may_only_predict_has_its_cells_guessed(wire: Wire, retrue: Command) -> None:
    def before(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(403, json={"detail": "no"}) if request.method == "GET" else None

    wire.before = before
    ran = retrue("predict", "flip", "--json", stdin="a,b,n,on,zone\n0.5,1,,true,2\n")
    assert (ran.code, len(ran.json["predictions"])) == (0, 1), ran.err


def labelled(retrue: Command) -> list[dict[str, Any]]:
    found = retrue("predict", "flip", "--json", stdin=FORMS["rows.json"]).json["predictions"]
    return [{"id": row["id"], "label": "UP"} for row in found]


def test_labels_go_the_same_ways(looking: Command) -> None:
    truths = labelled(looking)
    forms = [
        json.dumps(truths), json.dumps({"labels": truths}), "\n".join(map(json.dumps, truths)), as_csv(truths),
        as_csv([truth | {"observed_at": ""} for truth in truths]),
        as_csv([truth | {"observed_at": "2026-01-31T12:00:00Z"} for truth in truths]),
    ]  # fmt: skip
    for form in forms:
        ran = looking("label", "flip", "--json", "--batch", "2", stdin=form)
        assert (ran.code, ran.json) == (
            0, {"model": "flip", "labels": 5, "accepted": 5, "refused": 0, "errors": []},
        ), ran.err  # fmt: skip
    one = looking("label", "flip", "--set", f"{truths[0]['id']}=UP", "--set", f"{truths[1]['id']}=DOWN")
    assert one.code == 0
    assert one.out.split() == ["accepted", "refused", "2", "0"]


def test_a_label_that_is_refused_is_named_by_its_place_and_the_others_are_accepted(looking: Command) -> None:
    truths = labelled(looking)
    truths[3]["label"] = 7
    ran = looking("label", "flip", "--json", "--batch", "2", stdin=json.dumps(truths))
    assert (ran.code, ran.json["accepted"], ran.json["refused"]) == (1, 4, 1)
    assert [fault["item"] for fault in ran.json["errors"]] == [3]
    shown = looking("label", "flip", "--batch", "2", stdin=json.dumps(truths))
    assert "label 4, label: must be a string" in shown.err
    alone = looking("label", "flip", "--json", stdin=json.dumps(truths[3:4]))
    assert (alone.code, alone.json["accepted"], alone.json["refused"]) == (2, 0, 1)


def test_a_second_batch_in_which_all_is_refused_ends_nothing(looking: Command) -> None:
    truths = labelled(looking)
    for place in (2, 3):
        truths[place]["label"] = 7
    ran = looking("label", "flip", "--json", "--batch", "2", stdin=json.dumps(truths))
    assert (ran.code, ran.json["accepted"], ran.json["refused"]) == (1, 3, 2)
    assert [fault["item"] for fault in ran.json["errors"]] == [2, 3]


BAD = {
    "empty.json": ("", "is empty"),
    "blank.csv": ("\n\n", "is empty"),
    "none.json": ("[]", "holds no row"),
    "header.csv": ("a,b\n", "holds no row"),
    "text.json": ('"rows"', "write a list of rows"),
    "torn.json": ('[{"a": 1},\n{"a": ', "line 2"),
    "torn.jsonl": ('{"a": 1}\n{"a": ', "line 2"),
    "nan.json": ('[{"a": NaN}]', "NaN is no JSON number"),
    "deep.json": ("[" * 100_000, "nested too deeply"),
    "short.csv": ("a,b\n1,2\n3\n", "line 3 has 1 fields, the header 2"),
    "long.csv": ("a,b\n1,2,3\n", "line 2 has 3 fields"),
    "twice.csv": ("a,b,a\n1,2,3\n", "names 'a' twice"),
    "nameless.csv": ("a,\n1,2\n", "without a name"),
    "quote.csv": ('a,b\n"1,2\n', "line"),
    "columns.json": ('{"columns": {"a": [1, 2], "b": [1]}}', "differ in length"),
    "columns2.json": ('{"columns": [1]}', "object of lists"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_an_input_that_can_not_be_read_says_where_and_is_exit_2(name: str, looking: Command) -> None:
    text, said = BAD[name]
    (looking.folder / name).write_text(text)
    ran = looking("predict", "flip", name)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran.err
    assert name in ran.err
    assert said in ran.err


def test_bytes_that_are_no_text_and_folders_and_strange_text_are_exit_2(looking: Command) -> None:
    (looking.folder / "latin.csv").write_bytes("a,b\nä,1\n".encode("latin-1"))
    (looking.folder / "folder.json").mkdir()
    for name, said in (("latin.csv", "not UTF-8"), ("folder.json", "can't be read")):
        ran = looking("predict", "flip", name)
        assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
        assert said in ran.err
    half = looking("predict", "flip", stdin='[{"a": "\\ud800"}]')
    assert (half.code, half.err.count("\n")) == (2, 1), half.err


def test_cells_become_what_the_schema_asks_for() -> None:
    schema = FLIP.to_json() | {"label": "integer"}
    schema["features"] = [*schema["features"], {"name": "code", "kind": "categorical"}]
    types = types_of(schema)
    cells = {"a": "1e3", "on": "TRUE", "zone": "2", "code": "007", "at": "2026-01-01", "label": "3", "n": " "}
    assert {name: types[name](cell) for name, cell in cells.items()} == {
        "a": 1000.0, "on": True, "zone": 2, "code": "007", "at": "2026-01-01", "label": 3, "n": None,
    }  # fmt: skip
    assert types["a"]("inf") == "inf"
    assert types["a"]("nan") is None
    assert [guess(text) for text in ("007", "1e400", "x")] == [7, "1e400", "x"]


def test_the_form_is_known_by_name_and_else_by_the_first_character(tmp_path: Any) -> None:
    path = tmp_path / "rows"
    for text, rows in (
        ('{"a": 1}', [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ('{\n"a": 1\n}', [{"a": 1}]),
        ("[1, 2]\n[3, 4]", [[1, 2], [3, 4]]),
        ("[1, 2]", [[1, 2]]),
        ("[\n[1, 2]\n]", [[1, 2]]),
        ("a\n1", [{"a": 1}]),
    ):
        path.write_text(text)
        assert read_rows(str(path), written=Format.AUTO, under="instances", typed={}) == rows, text
