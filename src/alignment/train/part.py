"""One model of several that a trainer trains as one module, seen as a model by itself."""

from typing import Any

import torch
from transformers import PreTrainedModel, Trainer

from alignment.models.probe import without_autocast


class PartView:
    """A part of the trainer's module: to be called, to generate and to be looked at as if it were alone.

    It has no weights of its own, and what is set on it is set on the part. Calls go through the whole module's forward, where
    engines that deal out weights gather them.

    Args:
        without_adapter: the part as it is below its adapter, which is the reference of a fresh one.
    """

    def __init__(self, trainer: Trainer, name: str, *, without_adapter: bool = False) -> None:
        vars(self).update(_trainer=trainer, _name=name, _without_adapter=without_adapter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._part(), name, value)

    def __call__(self, **inputs: Any) -> Any:
        # Whoever measures sets the precision: the launcher's autocast around the whole module's forward is taken off.
        with without_autocast(self._trainer.model):
            return self._trainer.model("call", part=self._name, without_adapter=self._without_adapter, **inputs)

    def generate(self, **inputs: Any) -> torch.Tensor:
        """As the part's own; of the policy only."""
        return self._trainer.model("generate", **inputs)

    def _part(self) -> PreTrainedModel:
        return getattr(self._trainer.model, self._name)
