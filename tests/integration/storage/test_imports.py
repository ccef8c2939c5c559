"""What a worker that answers requests takes from storage costs it neither frames nor a lake."""

import subprocess
import sys

LIGHT = ("spool", "artifacts", "database", "models", "versions", "champions", "runs", "checks", "leases", "replicas")
HEAVY = ("alembic", "deltalake", "evidently", "pandas", "pyarrow", "sklearn")


def test_what_a_worker_imports_is_light() -> None:
    modules = ", ".join(f"service.storage.{name}" for name in LIGHT)
    code = f"import sys, {modules}; sys.exit(', '.join({set(HEAVY)!r} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
