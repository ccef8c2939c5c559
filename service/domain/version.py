"""A version: one immutable trained artifact of a model, with its lineage."""

from enum import StrEnum

__all__ = ["VersionState"]


class VersionState(StrEnum):
    """Where a version stands. The champion pointer, not this state, decides who answers."""

    CANDIDATE = "candidate"
    APPROVED = "approved"  # the gate let it through
    REJECTED = "rejected"
    CHAMPION = "champion"
    RETIRED = "retired"  # was champion once: a rollback target
    ARCHIVED = "archived"  # its artifact was cleaned away; only what it was is still known
    QUARANTINED = "quarantined"  # never chosen automatically again
