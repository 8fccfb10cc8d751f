"""Weights that a checkpoint holds under other names than the model has them.

transformers 5 holds the experts of a layer as one tensor and writes each by itself. Its Trainer (5.23: `_load_from_checkpoint`,
`_load_best_model`) reads a checkpoint by name and leaves out what it does not find, so a resumed mixture of experts would go on
with the experts that it began with, and say nothing.
"""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedModel

from alignment.errors import ArtifactError


class RenamedWeights:
    """Mixin before a Trainer class: reads such weights as `from_pretrained` does."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not self.is_fsdp_enabled:
            load_renamed(self.model if model is None else model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            load_renamed(self.model, Path(self.state.best_model_checkpoint))


def load_renamed(model: Any, folder: Path) -> bool:
    """Loads the weights in a folder anew where their names are not the model's own; whether they were not.

    Raises:
        ArtifactError: they are not all of this model.
    """
    if not isinstance(model, PreTrainedModel):
        return False
    names: set[str] = set()
    for path in folder.glob("model*.safetensors"):
        with safe_open(str(path), "pt") as file:
            names |= set(file.keys())
    if names <= set(model.state_dict()):
        return False
    whole, said = type(model).from_pretrained(
        str(folder), dtype=model.dtype, attn_implementation=model.config._attn_implementation, output_loading_info=True
    )
    if said["missing_keys"] or said["unexpected_keys"]:
        raise ArtifactError(
            f"{folder}: {len(said['missing_keys'])} weights are missing and {len(said['unexpected_keys'])} are not of this model; a "
            "checkpoint of this run was expected. Move the checkpoint away, and the same command goes on from the one before."
        )
    model.load_state_dict(whole.state_dict())
    return True
