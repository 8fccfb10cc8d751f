"""The model that is trained, and the frozen ones beside it: from what a recipe names to weights in this process.

Weights are trained in fp32, computed with in bfloat16 where the recipe says so, and saved in the recipe's dtype. Starting from an
adapter is never left to a library: a merged start is whole before a new adapter is put on it, a continued one is
loaded as trainable, and `train/begin.py` compares its scores with the parent's receipt.
"""

import importlib.util
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, set_seed

from alignment.errors import ArtifactError, LaunchError, RecipeError
from alignment.models.build import draw_score_head, fit_embeddings, make_reward_model
from alignment.models.gathered import whole_parameter
from alignment.models.load import Kind, Start, load_weights, read_base, read_saved_dtype, resolve_start, whole_weights
from alignment.models.lora import add_adapter, continue_adapter, merge_adapter
from alignment.train.part import PartView
from alignment.train.passes import spare_positions
from alignment.train.precision import check_attention
from alignment.train.training import Training

logger = logging.getLogger(__name__)
QUANTIZATION = "quantization_config"
ONE_DTYPE_STRATEGIES = ("zero3", "fsdp2")  # they deal out tensors that must not mix dtypes


@dataclass(frozen=True)
class Policy:
    """The trainable model with what is needed to save it."""

    model: PreTrainedModel
    kind: Kind
    start: Start  # what the weights below a new adapter, or all of them, were loaded from
    base: Start  # what an adapter is on; `start` where there is none
    saved_dtype: torch.dtype
    continues_adapter: bool = False
    new_head: bool = False  # a reward model whose score head was drawn for this run
    new_rows: int = 0  # embedding rows for tokens that the start model did not have
    notes: tuple[str, ...] = ()
    folder: str = "final"  # in the run folder, where the result is written
    part: str | None = None  # its name in the trainer's module, where that holds several models

    def trained(self, trainer: Trainer) -> Any:
        """The model itself, within what the trainer trains."""
        return getattr(trainer.model, self.part) if self.part else trainer.model

    @property
    def adapter_folder(self) -> str:
        """Where its adapter is written, if it has one."""
        return "adapter" if self.folder == "final" else f"{self.folder}_adapter"

    def live(self, trainer: Trainer) -> Any:
        """The model as the trainer has it: whole, wrapped or dealt out."""
        return PartView(trainer, self.part) if self.part else trainer.model

    @property
    def start_path(self) -> str:
        """What the recipe starts from, for a frozen copy of it."""
        return self.start.path

    @property
    def base_path(self) -> str:
        """The model below the adapter."""
        return self.base.path


def load_trainable_policy(training: Training) -> Policy:
    """The causal language model of the recipe, with its adapter where it has one. Every rank must call it."""
    return _load_trainable(training, "causal")


def load_trainable_reward_model(training: Training) -> Policy:
    """The sequence classifier with one score of the recipe. Every rank must call it."""
    return _load_trainable(training, "reward")


def load_trainable_critic(training: Training, start: Start) -> Policy:
    """A sequence classifier that reads the policy's tokens, from a reward model or a causal one. Every rank must call it.

    A head that is not in the weights says 0 of everything: there is no value yet, and a drawn one would be noise in the advantages.
    """
    critic = _load_merged(training, "reward", start)
    if critic.new_head:
        heads = [
            one for name, one in critic.model.named_parameters() if "score" in name.split(".") and "lora_" not in name
        ]
        for head in heads:
            with whole_parameter(head), torch.no_grad():
                head.zero_()
    return replace(settle(training, critic), folder="critic", part="critic")


def load_frozen(training: Training, path: str) -> PreTrainedModel:
    """A causal model that is not trained, in the dtype of this run's forward passes."""
    start = resolve_start(path) if path != training.start.path else training.start
    model = load_whole(start, "causal", load_dtype(training), **model_options(training))
    fit_embeddings(model, training.tokenizer)
    return spare_positions(model).requires_grad_(False).eval()


def load_frozen_reward_model(training: Training, start: Start) -> PreTrainedModel:
    """A reward model that is not trained. It is read with its own tokenizer.

    Its weights are in the dtype of the forward passes: nothing is compared with another copy of it, as a reference is.

    Raises:
        ArtifactError: what lies there has no trained score head.
    """
    half = training.bf16 and not training.context.cpu
    model = load_whole(start, "reward", torch.bfloat16 if half else torch.float32, **model_options(training))
    check_score_head(model, start)
    return model.requires_grad_(False).eval()


def check_score_head(model: PreTrainedModel, start: Start) -> None:
    """Refuses a model whose score head was drawn when it was loaded.

    Raises:
        ArtifactError: such a one.
    """
    if model.has_new_head:
        raise ArtifactError(
            f"{start.path}: has no trained score head; a reward model was expected. Name the run of a reward recipe."
        )


def load_whole(start: Start, kind: Kind, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """The model that `start` names; an adapter is merged into its base, in fp32, before anything is quantised."""
    if start.adapter is None:
        return load_weights(kind, start.model, revision=start.revision, dtype=dtype, **options)
    if QUANTIZATION in options:
        with tempfile.TemporaryDirectory() as folder:
            further = {name: value for name, value in options.items() if name != QUANTIZATION}
            load_whole(start, kind, torch.bfloat16, **further).save_pretrained(folder)
            return load_weights(kind, folder, dtype=dtype, **options)
    with whole_weights():
        task = adapter_task(start.adapter)
        base = load_weights(task, start.model, revision=start.revision, dtype=torch.float32, **options)
        merged = merge_adapter(base, start.adapter, dtype)
        merged.has_new_head = False  # of a reward run's adapter: the head came with it
        return make_reward_model(merged) if (task, kind) == ("causal", "reward") else merged


def adapter_task(adapter: Path) -> Kind:
    """What kind of model an adapter is of."""
    import json

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return "reward" if config.get("task_type") == "SEQ_CLS" else "causal"


def _load_trainable(training: Training, kind: Kind) -> Policy:
    recipe = training.recipe
    lora = recipe.lora if recipe.stage != "pretrain" else None
    if lora and lora.start == "continue":
        return settle(training, _load_continued(training, kind))
    return settle(training, _load_merged(training, kind, training.start))


def settle(training: Training, policy: Policy) -> Policy:
    """What every trained model gets, whatever it was loaded from."""
    model = policy.model
    spare_positions(model)
    model.config.use_cache = False
    model.config.get_text_config().pad_token_id = training.tokenizer.pad_token_id
    for note in policy.notes:
        if training.context.rank == 0:
            logger.info("%s", note)
    return policy


def _load_merged(training: Training, kind: Kind, start: Start) -> Policy:
    """All weights of a start model, and a new adapter on them where the recipe has one."""
    recipe = training.recipe
    lora = recipe.lora if recipe.stage != "pretrain" else None
    options = model_options(training) | (quantization() if lora and lora.load_in_4bit else {})
    model = load_whole(start, kind, load_dtype(training), **options)
    new_head = kind == "reward" and model.has_new_head
    new_rows = fit_embeddings(model, training.tokenizer)
    if new_head:
        draw_score_head(model, recipe.seed)
    if lora:
        set_seed(recipe.seed)  # the adapter's first weights are drawn from it, whatever was drawn before
        model = add_adapter(model, lora, kind, fp32_adapter=training.context.strategy not in ONE_DTYPE_STRATEGIES)
    return Policy(
        model=model,
        kind=kind,
        start=start,
        base=start,
        saved_dtype=read_saved_dtype(start, recipe.model.dtype),
        new_head=new_head,
        new_rows=new_rows,
        notes=_merge_notes(start),
    )


def _merge_notes(start: Start) -> tuple[str, ...]:
    if start.trained_adapter is None:
        return ()
    return (f"{start.path} is a LoRA run: its adapter is merged into the weights that training starts from.",)


def _load_continued(training: Training, kind: Kind) -> Policy:
    """The base of a LoRA run, with the run's own adapter to be trained on."""
    recipe, start = training.recipe, training.start
    if start.trained_adapter is None:
        raise RecipeError(
            f"lora.start: continue, and {start.path} is no LoRA run; a run with an adapter/ was expected. Write start: merge, or "
            "name the LoRA run."
        )
    base_path, base_revision = read_base(start.trained_adapter)
    base = resolve_start(base_path, base_revision)
    options = model_options(training) | (quantization() if recipe.lora.load_in_4bit else {})
    model = load_whole(base, kind, load_dtype(training), **options)
    return Policy(
        model=continue_adapter(model, start.trained_adapter, recipe.lora),
        kind=kind,
        start=start,
        base=base,
        saved_dtype=read_saved_dtype(replace(base, adapter=None), recipe.model.dtype),
        continues_adapter=True,
        notes=(f"The adapter of {start.path} is trained on, on its base {base.path}.",),
    )


# ------------------------------------------------------------------------------------------------ how weights are loaded


def load_dtype(training: Training) -> torch.dtype:
    """What weights are loaded in: fp32, but for frozen weights of a LoRA run that computes in bfloat16 on a GPU: there fp32 would only double the memory."""
    lora = training.recipe.lora if training.recipe.stage != "pretrain" else None
    half = lora is not None and training.bf16 and not training.context.cpu
    return torch.bfloat16 if half else torch.float32


def model_options(training: Training) -> dict[str, Any]:
    """What the recipe says of loading, whatever is loaded. Raises LaunchError where its attention kernel cannot be used."""
    model = training.recipe.model
    check_attention(model.attn_implementation, training.bf16)
    return {"attn_implementation": model.attn_implementation, "trust_remote_code": model.trust_remote_code}


def has_bitsandbytes() -> bool:
    """Whether weights can be loaded in 4 bits."""
    return importlib.util.find_spec("bitsandbytes") is not None


def quantization() -> dict[str, Any]:
    """How 4-bit weights are loaded: nf4 with double quantisation, computed with in bfloat16 (https://arxiv.org/abs/2305.14314, section 3).

    Raises:
        LaunchError: bitsandbytes is not installed.
    """
    if not has_bitsandbytes():
        raise LaunchError(
            "lora.load_in_4bit: bitsandbytes is not installed. Install it with `pip install 'alignment[qlora]'`, or write "
            "load_in_4bit: false."
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {QUANTIZATION: config}
