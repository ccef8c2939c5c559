"""How much one worker takes on."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a worker refuses beyond, and what it does in its event loop."""

    body_bytes: int = 8 << 20
    head_bytes: int = 64 << 10
    intake_bytes: int = 256 << 20
    """All bodies together that are still coming in."""
    connections: int = 4096
    request_rows: int = 10_000
    queue_rows: int = 20_000
    """Rows of one model that may wait."""
    batch_rows: int = 4_096
    """Rows that are joined into one batch; a larger request is a batch of its own."""
    deadline_s: float = 10.0
    """Seconds from the first byte of a request to its answer."""
    loop_budget_s: float = 0.002
    """A batch expected to take longer than this is answered on a thread, so that it does not hold the event loop."""
