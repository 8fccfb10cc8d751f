"""What a PPO checkpoint holds beside transformers' own files, and how it is read back.

    policy/  critic/      as `save_pretrained` writes them: a model, or of LoRA the adapter
    ppo_state.json        KL coefficient, scale of scores, counts of tokens, what alerts compare with

The prompts of the next update and its random numbers follow from the step alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from alignment.errors import ArtifactError
from alignment.models.lora import load_adapter_weights
from alignment.train.ppo.actor_critic import ActorCritic
from alignment.train.renamed import load_renamed

STATE = "ppo_state.json"
PARTS = ("policy", "critic")


def save_parts(model: ActorCritic, folder: Path, state: Mapping[str, torch.Tensor] | None) -> None:
    """Writes both models.

    Args:
        state: whole tensors of the whole module, where the model itself is dealt out.
    """
    for name in PARTS:
        own = None
        if state is not None:
            prefix = f"{name}."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        getattr(model, name).save_pretrained(str(folder / name), state_dict=own)


def load_parts(model: ActorCritic, folder: Path) -> None:
    """Reads both models back into one that is whole.

    Raises:
        ArtifactError: a part is missing, or is not of this model.
    """
    for name in PARTS:
        part = getattr(model, name)
        if hasattr(part, "peft_config"):
            load_adapter_weights(part, folder / name)
            continue
        if load_renamed(part, folder / name):
            continue
        weights = {
            key: value for path in (folder / name).glob("*.safetensors") for key, value in load_file(path).items()
        }
        tied = set(part._tied_weights_keys or ())
        missing, unexpected = part.load_state_dict(weights, strict=False)
        if unexpected or [key for key in missing if key not in tied]:
            raise ArtifactError(
                f"{folder / name}: {len(missing)} weights are missing and {len(unexpected)} are not of this model; a checkpoint of "
                "this run was expected. Move the checkpoint away, and the same command goes on from the one before."
            )
        part.tie_weights()


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes ppo_state.json."""
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """Reads ppo_state.json. Raises ArtifactError when there is none."""
    path = folder / STATE
    if not path.is_file():
        raise ArtifactError(
            f"{path}: not found; every checkpoint of PPO has one. Delete the checkpoint, it is not whole."
        )
    return json.loads(path.read_text(encoding="utf-8"))
