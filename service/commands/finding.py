"""What the doctor finds: one thing that was looked at, how it is, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from service.client import Json

__all__ = ["Finding", "Health", "examined", "good", "remark", "wrong"]


class Health(StrEnum):
    """How something is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing to mend."""
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    health: Health
    words: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""

    def to_json(self) -> Json:
        """Return plain JSON values."""
        return asdict(self) | {"health": self.health.value}


def good(name: str, words: str) -> Finding:
    """Return that it is as it should be."""
    return Finding(name=name, health=Health.OK, words=words)


def remark(name: str, words: str, remedy: str = "") -> Finding:
    """Return what is worth knowing."""
    return Finding(name=name, health=Health.NOTE, words=words, remedy=remedy)


def wrong(name: str, words: str, remedy: str) -> Finding:
    """Return what must be mended, and how."""
    return Finding(name=name, health=Health.WRONG, words=words, remedy=remedy)


def examined(name: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield what `look` finds; what keeps it from looking is a finding too, never the end of the examination."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001  a doctor who faints helps nobody
        said = str(error).splitlines()[0] if str(error) else ""
        yield wrong(
            name, f"can't be examined: {type(error).__name__} {said}".rstrip(), "mend that first, then ask again"
        )
