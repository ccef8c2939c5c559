"""Retrue beside a hand-written FastAPI service, other model servers, and the limits of the wire, in one run.

Needs wrk. Every server answers with the same three fitted pipelines, which the service itself trains first.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.launched import scratch  # noqa: E402  the thread caps come before numpy
from bench.report import Section, publish  # noqa: E402
from bench.serving_load import wrk_is_here  # noqa: E402
from bench.serving_models import MODELS, fitted, project, sampled, train  # noqa: E402
from bench.serving_peers import peers  # noqa: E402
from bench.serving_run import ALONE_1, ALONE_16, CASES, MANY_1, Case, Plan, play  # noqa: E402
from bench.serving_servers import ECHOES, HANDWRITTEN, OURS, Server, local, retrue  # noqa: E402
from bench.serving_table import section  # noqa: E402

SECONDS, QUICK_SECONDS, ROUNDS = 4, 1, 3
QUICK_CASES = (ALONE_16, MANY_1)
NO_WRK = "wrk is not installed: `apt-get install wrk` (Debian, Ubuntu) or `brew install wrk` (macOS) brings it"


def main() -> int:
    """Run the rounds and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="without the peers, one round, fewer cases: 3 minutes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers whose names contain one of these words")
    parser.add_argument("--seconds", type=int, help=f"of each case ({SECONDS}; quick: {QUICK_SECONDS})")
    parser.add_argument("--rounds", type=int, help=f"({ROUNDS}; quick: 1)")
    parser.add_argument("--draft", action="store_true", help="write the table below .cache, not into docs/bench.md")
    given = parser.parse_args()
    if not wrk_is_here():
        print(NO_WRK, file=sys.stderr)
        return 2
    # Servers are in sessions of their own: whoever ends the bench must not leave them behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(
        rounds=given.rounds or (1 if given.quick else ROUNDS),
        seconds=given.seconds or (QUICK_SECONDS if given.quick else SECONDS),
        cases={model: _cases(model, quick=given.quick) for model in MODELS},
        warm=not given.quick,
    )
    began = time.perf_counter()
    folder = scratch("serving")
    try:
        found = run(folder, plan, quick=given.quick, only=given.only, began=began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return publish(found, root=ROOT / ".cache" / "draft" if given.draft else ROOT)


def run(folder: Path, plan: Plan, *, quick: bool, only: Sequence[str] | None, began: float) -> Section:
    """Train, measure, and return the table."""
    compiling = project(folder / "compiled", compiles=True)
    plain = project(folder / "plain", compiles=False)
    train([compiling, plain])
    models = fitted(compiling)
    print(f"trained after {time.perf_counter() - began:.0f} s", flush=True)
    artifacts = {name: model.artifact for name, model in models.items()}
    servers: list[Server] = [
        retrue(OURS[0], compiling),
        retrue(OURS[2], plain),
        local(HANDWRITTEN, "serve_handwritten.py", path=lambda model: f"/predict/{model}", artifacts=artifacts),
        *(
            local(name, "serve_echo.py", kind, path=lambda _model: "/predict", artifacts=artifacts)
            for name, kind in zip(ECHOES, ("asgi", "starlette", "fastapi"), strict=True)
            if not quick or name == ECHOES[1]  # the only one that a target names
        ),
    ]
    failed: dict[str, str] = {}
    if not quick:
        servers.insert(1, retrue(OURS[1], compiling, workers=2))
        others, failed = peers(artifacts, only=only)
        servers += others
    chosen = [server for server in servers if not only or any(word in server.name for word in only)]
    found = play(chosen, models, sampled(), plan, folder=folder)
    found.failed |= failed
    names = [*(server.name for server in chosen), *failed]
    more = Section(name="", title="", columns=(), rows=())
    return section(found, plan, names, quick=quick, seconds=time.perf_counter() - began, more=more)


def _cases(model: str, *, quick: bool) -> Sequence[Case]:
    if not quick:
        return CASES
    return (ALONE_1, *QUICK_CASES) if model == MODELS[0] else QUICK_CASES


if __name__ == "__main__":
    sys.exit(main())
