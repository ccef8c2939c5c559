"""Prometheus reads the configuration, the rules and their cases: each alert fires when it shall, and only then."""

import subprocess
from pathlib import Path

import pytest

from tests.prometheus import RULES, program

pytestmark = pytest.mark.timeout(400)  # hours of samples are walked through, and the machine may be busy

CASES = sorted((RULES / "tests").glob("*.yml"))


def promtool(*words: str | Path) -> None:
    done = subprocess.run([program("promtool"), *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_sound() -> None:
    promtool("check", "rules", *sorted((RULES / "rules").glob("*.yml")))
    # It has a file for each alert manager and rule, so it is read where it stands.
    promtool("check", "config", RULES / "prometheus.yml")


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_an_alert_fires_in_its_cases_and_stays_silent_in_the_others(case: Path) -> None:
    promtool("test", "rules", case)
