"""Laws of the serving bench's pure parts: what wrk says is read rightly, ratios and targets follow from it."""

import itertools
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bench.serving_load import TOLERANCE, Expected, Load, Reading, fault, parsed
from bench.serving_peers import KINDS, PACKAGES, requirements
from bench.serving_run import ALONE_1, ALONE_16, MANY_1, Case, Found, Measured
from bench.serving_servers import ECHOES, HANDWRITTEN, OURS, PEERS
from bench.serving_table import Figures, spread, targets

WRK = """Running 1s test @ http://127.0.0.1:8080
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.85ms    0.20ms   4.10ms   91.00%
Requests/sec:  20000.00
{"requests": 20000, "seconds": 2.000000, "p50_ms": 0.700, "p90_ms": 0.900, "p99_ms": 1.900, "max_ms": 4.100, \
"status": 40, "connect": 0, "read": 2, "write": 0, "timeout": 1}
"""
COMPILED, _, PLAIN = OURS
PEER = "a peer"


def measured(server: str, model: str, case: Case, rate: float, *, p50: float = 1.0, p99: float = 2.0) -> Measured:
    seen = Load(
        requests=int(rate * 2), seconds=2.0, p50_ms=p50, p90_ms=p50, p99_ms=p99, max_ms=p99,
        status=0, connect=0, read=0, write=0, timeout=0,
    )  # fmt: skip
    return Measured(server=server, model=model, case=case, round=0, load=seen, cpu_s=1.0, memory_mib=1.0, wrong=0)


def held(
    *measures: Measured, peers: tuple[str, ...] = (PEER,), bare: dict[str, list[float]] | None = None
) -> list[str]:
    found = Found(measured=list(measures), bare=bare or {})
    return [("met " if one.met else "MISSED ") + one.words for one in targets(Figures(measures), found, peers)]


def test_the_rate_leaves_out_answers_that_were_none() -> None:
    seen = parsed(WRK)
    assert (seen.rate, seen.errors, seen.p99_ms) == ((20_000 - 40) / 2, 43, 1.9)


@pytest.mark.parametrize("output", ["", "Requests/sec: 1.0\n", WRK + WRK, WRK.replace('"seconds": 2', '"seconds": 0')])
def test_an_output_without_exactly_one_measure_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match="wrk"):
        parsed(output)


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (Reading(outputs=[1, 0], probabilities=[[0.1, 0.9], [0.8, 0.2]]), ""),
        (Reading(outputs=[1, 0]), ""),
        (Reading(outputs=[1]), "outputs for"),
        (Reading(outputs=[0, 0]), "other outputs"),
        (Reading(outputs=[1, 0], probabilities=[[0.1, 0.9], [0.8 - 2 * TOLERANCE, 0.2]]), "other probabilities"),
        (Reading(outputs=[1, 0], probabilities=[[0.1, 0.9]]), "other probabilities"),
    ],
)
def test_an_answer_is_right_only_if_every_row_is(reading: Reading, words: str) -> None:
    right = Expected(outputs=(1, 0), probabilities=((0.1, 0.9), (0.8, 0.2)))
    assert words in fault(reading, right)
    assert bool(words) == bool(fault(reading, right))


def test_probabilities_of_one_row_are_not_taken_for_those_of_two() -> None:
    right = Expected(outputs=(1, 1), probabilities=((0.1, 0.9), (0.1, 0.9)))
    assert fault(Reading(outputs=[1, 1], probabilities=[[0.1, 0.9]]), right) != ""


def test_a_class_may_differ_only_where_two_are_as_likely_as_each_other() -> None:
    tie = Expected(outputs=(1,), probabilities=((0.5 - TOLERANCE / 4, 0.5 + TOLERANCE / 4),))
    assert fault(Reading(outputs=[0]), tie) == ""
    assert fault(Reading(outputs=[0]), replace(tie, probabilities=((0.49, 0.51),))) != ""


def test_ratios_are_those_of_medians_within_the_run() -> None:
    ours = [measured(COMPILED, "linear", ALONE_16, rate) for rate in (100.0, 900.0, 300.0)]
    others = [measured(HANDWRITTEN, "linear", ALONE_16, rate) for rate in (20.0, 10.0, 30.0)]
    figures = Figures([*ours, *others])
    assert figures.ratio("linear", ALONE_16, COMPILED, HANDWRITTEN) == 15.0
    assert figures.ratio("forest", ALONE_16, COMPILED, HANDWRITTEN) is None
    assert spread([100.0, 900.0, 300.0]) == "300 (100–900)"


@pytest.mark.parametrize(
    ("ours", "other", "least"),
    [(COMPILED, HANDWRITTEN, 20), (COMPILED, PEER, 8), (COMPILED, ECHOES[1], 0.55), (PLAIN, HANDWRITTEN, 12),
     (PLAIN, PEER, 5), (PLAIN, ECHOES[1], 0.35)],
)  # fmt: skip
def test_a_ratio_below_its_target_is_missed(ours: str, other: str, least: float) -> None:
    for rate, word in ((1000 * least, "met"), (1000 * least * 0.99, "MISSED")):
        said = held(measured(ours, "linear", ALONE_16, rate), measured(other, "linear", ALONE_16, 1000.0))
        assert any(words.startswith(word) and other in words for words in said), said


def test_the_best_peer_is_the_one_compared_with() -> None:
    slow, fast = (measured(name, "linear", ALONE_16, rate) for name, rate in (("slow", 10.0), ("fast", 100.0)))
    said = held(measured(COMPILED, "linear", ALONE_16, 500.0), slow, fast, peers=("slow", "fast"))
    assert any("MISSED" in words and "5.00 × fast" in words for words in said), said
    assert not any("slow" in words for words in said)


def test_blocks_are_held_against_the_bare_predict_of_the_same_engine() -> None:
    bare = {"linear onnx": [100.0, 1000.0, 400.0], "linear scikit-learn": [10.0]}
    assert any(
        "MISSED" in one and "0.50 of the bare" in one
        for one in held(measured(COMPILED, "linear", MANY_1, 200.0), bare=bare)
    )
    assert any(
        "met" in one and "0.80 of the bare" in one
        for one in held(measured(COMPILED, "linear", MANY_1, 320.0), bare=bare)
    )


def test_the_median_answer_is_held_against_the_echo() -> None:
    echo = measured(ECHOES[1], "linear", ALONE_1, 10_000.0, p50=0.050)
    near, far = (measured(COMPILED, "linear", ALONE_1, 5_000.0, p50=p50) for p50 in (0.145, 0.155))
    assert any(one.startswith("met") and "µs apart" in one for one in held(near, echo))
    assert any(one.startswith("MISSED") and "µs apart" in one for one in held(far, echo))


def test_one_wrong_answer_or_error_of_ours_is_a_miss() -> None:
    one = measured(COMPILED, "forest", ALONE_16, 100.0)
    assert any(words.startswith("met Retrue: 0 wrong") for words in held(one))
    for harmed in (
        msgspec.structs.replace(one, wrong=1),
        msgspec.structs.replace(one, load=msgspec.structs.replace(one.load, timeout=1)),
    ):
        assert any(words.startswith("MISSED Retrue:") for words in held(harmed))


def test_every_peer_pins_its_versions_in_its_own_file() -> None:
    pinned = [requirements((PEERS / f"serve_{package}.py").read_text()) for package in PACKAGES]
    assert all("==" in one for one in itertools.chain(*pinned))
    assert {package for package, *_ in KINDS.values()} == set(PACKAGES)
    with pytest.raises(ValueError, match="header"):
        requirements(Path(__file__).read_text().replace("# /// script", ""))
