"""New models: from a recipe's config with weights drawn once, and new parts of loaded ones (a score head, embedding rows)."""

import math
import shutil
from pathlib import Path

import torch
from filelock import FileLock
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignment.errors import RecipeError
from alignment.models.gathered import whole_parameter
from alignment.models.load import whole_weights
from alignment.models.score_head import score_in_fp32
from alignment.recipe.model_config import ModelConfigSpec

_HEAD_PURPOSE = 0x5C04E  # no other draw from the seed uses this number


def write_initial_model(
    spec: ModelConfigSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, max_length: int, folder: Path
) -> Path:
    """Draws the weights of a new model and saves them in fp32; a folder that is there already is kept.

    Called before any engine is set up, so that every strategy loads the same weights: drawn inside ZeRO-3 they would be
    others (DeepSpeed 0.19 draws each rank's part by itself).

    Raises:
        RecipeError: the config reads fewer positions than the rows have, or cannot be built.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if not (folder / "config.json").is_file():
            model = build_model(spec, tokenizer, seed=seed, max_length=max_length)
            partial = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            model.save_pretrained(partial)
            partial.rename(folder)
    return folder


def build_model(
    spec: ModelConfigSpec, tokenizer: PreTrainedTokenizerBase, *, seed: int, max_length: int
) -> PreTrainedModel:
    """A causal language model in fp32 with weights drawn from `seed`, on the CPU."""
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    arguments = spec.arguments()
    if arguments.get("router_aux_loss_coef"):
        arguments["output_router_logits"] = True  # without them transformers leaves the balancing loss out
    try:
        config = AutoConfig.for_model(spec.model_type, **arguments, **ids)
    except (ValueError, StrictDataclassError) as error:
        raise RecipeError(f"model.config: {str(error).strip().splitlines()[-1].strip()}") from error
    if config.max_position_embeddings < max_length:
        raise RecipeError(
            f"model.config: it reads {config.max_position_embeddings} positions; data.max_length asks for {max_length}. "
            "Raise max_position_embeddings (n_positions of gpt2), or lower data.max_length."
        )
    with whole_weights(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def draw_score_head(model: PreTrainedModel, seed: int) -> None:
    """Gives a new score head weights of standard deviation 1 / sqrt(H + 1), as in https://arxiv.org/abs/2009.01325.

    transformers' own draw differs between ranks and strategies; this one does not. Every rank must call it.
    """
    weight = model.score.weight
    with whole_parameter(weight), torch.no_grad():
        generator = torch.Generator().manual_seed(seed * 1_000_003 + _HEAD_PURPOSE)
        drawn = torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[-1] + 1)
        weight.copy_(drawn)


def make_reward_model(causal: PreTrainedModel) -> PreTrainedModel:
    """A sequence classifier with the body of a causal model that is in memory, and a score head still to be drawn."""
    config = causal.config
    config.num_labels = 1
    with whole_weights():
        model = AutoModelForSequenceClassification.from_config(config, dtype=causal.dtype)
    model.base_model.load_state_dict(causal.base_model.state_dict())
    model.has_new_head = True
    return score_in_fp32(model)


def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Adds rows for tokens that the tokenizer has gained; returns how many. A table that is larger stays as it is."""
    rows = model.config.get_text_config().vocab_size
    missing = len(tokenizer) - rows
    if missing > 0:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return max(missing, 0)
