"""The slot: one attribute per model that points at the bundle which answers now."""

from service.domain.errors import NoChampion
from service.domain.spec import unknown_model
from service.serving.bundle import Bundle

__all__ = ["Slot", "Slots"]


class Slot:
    """Where one model's bundle stands. A request reads `bundle` once; the replica binds it anew."""

    __slots__ = ("bundle", "model")

    def __init__(self, model: str) -> None:
        self.model = model
        self.bundle: Bundle | None = None


class Slots:
    """All slots of a worker. Binding is one assignment: a reader sees the old bundle or the new one."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}

    @property
    def serves(self) -> bool:
        """Whether any of them answers."""
        return any(slot.bundle is not None for slot in self._slots.values())

    def take(self, model: str) -> Bundle:
        """Return the bundle that answers for `model` now.

        Raises
        ------
        UnknownModel
            If no model of that name is registered.
        NoChampion
            If it has no version that could answer.
        """
        slot = self._slots.get(model)
        if slot is None:
            raise unknown_model(model)
        if slot.bundle is None:
            msg = "the model has no champion yet: its first version is still to be trained, or did not load"
            raise NoChampion(msg, model=model, retry_after_s=5)
        return slot.bundle

    def open(self, model: str) -> None:
        """Make room for a registered model; nothing happens if it has a slot."""
        if model not in self._slots:
            self._slots = {**self._slots, model: Slot(model)}

    def bind(self, bundle: Bundle) -> bool:
        """Point the model's slot at `bundle`, unless it holds that generation or a newer one already."""
        self.open(bundle.model)
        slot = self._slots[bundle.model]
        if slot.bundle is not None and slot.bundle.generation >= bundle.generation:
            return False
        slot.bundle = bundle
        return True

    def bundles(self) -> dict[str, Bundle | None]:
        """Return what each slot holds."""
        return {name: slot.bundle for name, slot in self._slots.items()}
