"""What would happen: each thing that an operator may press, in words, before it is pressed."""

from dataclasses import dataclass

from service.console.look import Look
from service.console.words import day
from service.domain.policy import Drift, Gate, Probation, Training
from service.storage.versions import VersionRow

__all__ = ["Consequence", "of_approve", "of_cancel", "of_check", "of_promote", "of_retrain", "of_rollback", "of_switch"]

HOLDING = ("pin", "freeze", "hold")
"""Switches that leave a promotion to a person."""

SET = {
    "pause": (
        "Nothing is started by itself: a check that calls for a run only records it.",
        "Checks go on, and a run that you ask for is made.",
    ),
    "freeze": (
        "Nothing is trained and nothing is promoted; a run that waits goes on waiting.",
        "Checks go on, and a rollback stays possible.",
    ),
    "pin": (
        "The champion stays as it is: no promotion, and no rollback, not even out of its probation.",
        "Checks and training go on; a challenger that passes waits.",
    ),
    "hold": (
        "Nothing is promoted by itself: a challenger that passes waits for a person.",
        "Checks and training go on.",
    ),
}
CLEAR = {
    "pause": ("The next check that calls for a run starts one again.",),
    "freeze": ("Training and promotion go on; runs that waited go on too.",),
    "pin": ("The champion may change again, by promotion and by rollback.",),
    "hold": ("Challengers that pass are promoted by themselves again; one that was held goes on now.",),
    "quarantine": ("You accept the present data as the new normal: they may be learned from and cause runs again.",),
    "breaker": (
        "You say that what broke the last runs is mended: checks start runs again, and no longer suggest them.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Consequence:
    """What follows."""

    summary: str
    """In one sentence."""
    steps: tuple[str, ...] = ()
    """In the order in which it happens."""
    forbidden: str | None = None
    """Why it would be refused now."""

    @property
    def is_allowed(self) -> bool:
        """Whether it would be done."""
        return self.forbidden is None


def of_check(look: Look) -> Consequence:
    """Return what follows from a check."""
    if look.champion is None:
        return _refused("There is nothing to compare with yet.", "the model has no champion")
    if look.under_way is not None:
        return Consequence(summary="A check is under way; you get that one.")
    window = look.policy(Drift).window
    return Consequence(
        summary=f"Looks at the newest {window} of answered rows; takes some seconds.",
        steps=(
            f"The window is compared with what version {look.champion.version} learned from: data quality first, then "
            "drift, then realised quality.",
            "What it shows is decided on like any check: it may quarantine the data, or call for a run.",
        ),
    )


def of_retrain(look: Look) -> Consequence:
    """Return what follows from a run."""
    if "freeze" in look.switches:
        return _refused("Nothing would be trained.", f"the model is frozen: {look.switches['freeze'].reason}")
    if look.active is not None:
        return _refused("Nothing would be started.", f"a run is under way already: {look.active.state.value}")
    opposed = "judged alone, for there is no champion"
    if look.champion is not None:
        opposed = f"judged against version {look.champion.version} on the same newest rows"
    holdout = look.policy(Training).holdout
    steps = [
        "A trainer learns from all labelled rows until now. Requests are answered as before meanwhile.",
        f"The challenger is {opposed} ({holdout}), and must pass every clause of the gate.",
        _passed(look),
    ]
    if look.champion is not None:
        steps.append(f"If it fails, version {look.champion.version} stays and nothing else changes.")
    if "quarantine" in look.switches:
        steps.append("The data are in quarantine: the run leaves the broken stretch out, or ends blocked.")
    return Consequence(summary=f"Trains a challenger. {_short(look)}", steps=tuple(steps))


def _short(look: Look) -> str:
    if _held(look):
        return "It is not promoted by itself."
    if look.champion is None:
        return "It serves if it passes the gate."
    return f"It replaces version {look.champion.version} only if it passes the gate."


def _held(look: Look) -> str | None:
    held = [name for name in HOLDING if name in look.switches]
    if held:
        return f"{' and '.join(held)} {'is' if len(held) == 1 else 'are'} on"
    if look.policy(Gate).approval:
        return "its policy asks for a person's approval"
    return None


def _passed(look: Look) -> str:
    if (held := _held(look)) is not None:
        return f"If it passes, it waits for a person: {held}."
    if look.probation is not None:
        return (
            f"If it passes, it waits until the probation of version {look.probation.version} is over, and is promoted "
            "then."
        )
    watch = look.policy(Probation).duration
    then = f", and is watched for {watch} of event time: a breach takes it back" if watch and look.champion else ""
    return f"If it passes, it becomes champion as soon as every worker has loaded it{then}."


def of_rollback(look: Look, *, to: int | None = None, target: VersionRow | None = None) -> Consequence:
    """Return what follows from a rollback, to the best version that can be gone back to unless another is named."""
    if look.champion is None:
        return _refused("Nothing would change.", "the model has no champion")
    if "pin" in look.switches:
        return _refused("Nothing would change.", f"the champion is pinned: {look.switches['pin'].reason}")
    aim = to if to is not None else next(iter(look.targets), None)
    if aim is None:
        return _refused("Nothing would change.", "no version before this one was kept and can answer")
    now = look.champion
    is_watched = look.probation is not None and look.probation.generation == now.generation
    after = (
        f"Version {now.version} is on probation: it is quarantined, and nothing chooses it by itself again."
        if is_watched
        else f"Version {now.version} is retired; you can go back to it."
    )
    then = "Automatic promotion is held until somebody clears hold; checks and training go on."
    steps = [f"Every worker answers with version {aim} within about a second, without a gate (generation "
             f"{now.generation + 1})."]  # fmt: skip
    if target is not None and (target.metrics or {}).get("value") is not None:
        metric, value = target.metrics.get("metric"), target.metrics["value"]
        steps.append(f"Version {aim} reached {metric} {value:.4g} on its own holdout.")
    steps += [after, then]
    summary = f"Version {aim} answers again at once, in place of version {now.version}."
    if (taken := look.taken.get(aim)) is not None:
        # Nobody may put back in a hurry what was bad yesterday without being told.
        summary = f"Undoes a rollback: {summary[0].lower()}{summary[1:]}"
        steps.insert(0, f"{taken.actor} took version {aim} back on {day(taken.ended_at)}: {taken.reason}.")
    if look.active is not None:
        steps.append("The run under way goes on; its challenger is judged again, against the new champion.")
    return Consequence(summary=summary, steps=tuple(steps))


def of_promote(look: Look, version: VersionRow) -> Consequence:
    """Return what follows from a promotion by hand."""
    for name in ("freeze", "pin"):
        if name in look.switches:
            return _refused("Nothing would change.", f"the switch {name} is on: {look.switches[name].reason}")
    if version.state.value in {"quarantined", "archived"}:
        return _refused("Nothing would change.", f"version {version.version} is {version.state.value}")
    if look.champion is not None and look.champion.version == version.version:
        return _refused("Nothing would change.", "it is the champion already")
    now = "" if look.champion is None else f", in place of version {look.champion.version}"
    return Consequence(
        summary=f"Version {version.version} becomes champion{now}, whatever its gate said.",
        steps=(
            "Every worker loads and proves it first; one that can't stops it, and nothing changes.",
            "It is watched on probation, as any new champion.",
        ),
    )


def of_switch(look: Look, switch: str, *, is_set: bool) -> Consequence:
    """Return what follows from setting a switch, or from clearing it."""
    if is_set:
        first, *rest = SET[switch]
        return Consequence(summary=first, steps=(*rest, "It stays on until somebody clears it."))
    if switch not in look.switches:
        return _refused("Nothing would change.", f"the switch {switch} is not on")
    first, *rest = CLEAR[switch]
    return Consequence(summary=first, steps=tuple(rest))


def of_cancel() -> Consequence:
    """Return what follows from cancelling a run."""
    return Consequence(
        summary="The run ends without a promotion; what it trained is dropped.",
        steps=("The champion stays. Once its version is champion it is too late: roll back then.",),
    )


def of_approve(look: Look, version: int | None, *, is_approved: bool) -> Consequence:
    """Return what follows from a person's decision on a challenger."""
    if not is_approved:
        return Consequence(summary=f"Version {version} is turned down; the champion stays.")
    for name in ("freeze", "pin"):
        if name in look.switches:
            return _refused("Nothing would change.", f"the switch {name} is on: {look.switches[name].reason}")
    now = "" if look.champion is None else f", in place of version {look.champion.version}"
    return Consequence(
        summary=f"Version {version} becomes champion{now} as soon as every worker has loaded it.",
        steps=("It is watched on probation: a breach takes it back.",),
    )


def _refused(summary: str, why: str) -> Consequence:
    return Consequence(summary=summary, forbidden=why)
