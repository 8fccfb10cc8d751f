"""One pass of each phase of a run, by the stage's own trainer on tensors without storage: bytes and FLOPs, nothing trained.

What is counted is what the code itself allocates: the model class and attention kernel of the recipe, TRL's losses, our PPO, its adapter,
its checkpointing. What an engine adds by dealing weights out is arithmetic (memory.py). Attention counts as torch's kernels for CPUs
allocate, which like those of GPUs keep the output and one number a row, and no matrix of scores.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainingArguments,
)

from alignment.errors import RecipeError
from alignment.models.attention import attention_as_on
from alignment.models.load import Kind
from alignment.models.lora import add_adapter
from alignment.models.score_head import score_in_fp32
from alignment.plan.architecture import Architecture
from alignment.plan.live_bytes import LiveBytes, without_storage
from alignment.recipe.schema import Recipe
from alignment.train.collate import TokenCollator
from alignment.train.ppo import actor_critic, losses
from alignment.train.ppo.rollout import collate
from alignment.train.stages.pretrain import RecipeTrainer
from alignment.train.trl_bridge import dpo as dpo_bridge
from alignment.train.trl_bridge import reward as reward_bridge
from alignment.train.trl_bridge import sft as sft_bridge
from alignment.train.trl_bridge.head import only_tiles

PAD = 1


@dataclass(frozen=True)
class Shape:
    """A pass: rows (pairs of reward and dpo, completions of ppo), and tokens of the longest one."""

    rows: int
    length: int
    prompt: int = 0  # of these tokens, those before the completion


@dataclass(frozen=True)
class Precision:
    """Dtypes of a run, in bytes an element where they decide."""

    bf16: bool  # computed in
    half_weights: (
        bool  # weights that a forward pass reads are bfloat16: an engine's copies, or frozen ones below an adapter
    )
    gpu: bool


@dataclass(frozen=True)
class Weights:
    """Elements of a model.

    Attributes:
        frozen: those that are not trained; `quantised` of them are in 4 bits.
        layer: of the largest layer, which engines gather at once.
        root: outside of layers: embeddings, head, last norm.
    """

    trained: int
    frozen: int
    quantised: int
    layer: int
    root: int

    @property
    def total(self) -> int:
        return self.trained + self.frozen


@dataclass(frozen=True)
class DryRun:
    """What the passes took.

    Attributes:
        weights: of each model: policy, and reference, critic, reward where there are such.
        peaks: bytes beyond weights in each phase: step, evaluation, and of ppo score and rollout.
        gradients: bytes of all gradients of this process's model.
        flops: of a phase's pass over `tokens[phase]` positions, padding included.
    """

    weights: dict[str, Weights]
    peaks: dict[str, int] = field(default_factory=dict)
    gradients: int = 0
    flops: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)


def dry_run(
    recipe: Recipe,
    models: dict[str, Architecture],
    shapes: dict[str, Shape],
    precision: Precision,
    *,
    keep_gradients: bool,
    accumulates: bool,
) -> DryRun:
    """Runs each phase once.

    Args:
        models: `policy`, and `reference`, `critic`, `reward` where they are separate models in memory.
        shapes: of the phases `step` and `evaluation`, and of ppo `score`.
        keep_gradients: they stay on this process, as without an engine that deals them out.
        accumulates: a step takes several passes; the gradients of those before are there in the measured one.

    Raises:
        RecipeError: the architecture cannot be built, or its code needs values of tensors.
    """
    with without_storage() as mode, _quiet(), only_tiles(precision.gpu), attention_as_on(precision.gpu):
        try:
            run = _Passes(recipe, models, precision, mode)
            return run.measure(shapes, keep_gradients=keep_gradients, accumulates=accumulates)
        except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
            reason = (str(error).strip() or "no more is said").splitlines()[0]
            raise RecipeError(
                f"{models['policy'].path}: {models['policy'].config.get('model_type')} cannot be planned ({type(error).__name__}: {reason}); "
                "an architecture of transformers whose shapes do not depend on values was expected."
            ) from error


class _Passes:
    """The trainer of a stage with its models, and its phases."""

    def __init__(self, recipe: Recipe, models: dict[str, Architecture], precision: Precision, mode: Any) -> None:
        self.recipe, self.precision, self._mode = recipe, precision, mode
        self.models = {name: self._build(name, found) for name, found in models.items()}

    def measure(self, shapes: dict[str, Shape], *, keep_gradients: bool, accumulates: bool) -> DryRun:
        phases = _PPO_PHASES if self.recipe.stage == "ppo" else _PHASES
        begin = phases["begin"](self)
        trained = [one for model in self.models.values() for one in model.parameters() if one.requires_grad]
        weights = {name: count_weights(model, self.recipe) for name, model in self.models.items()}
        run = DryRun(weights, gradients=sum(one.numel() * one.element_size() for one in trained))
        hooks = [] if keep_gradients else [one.register_post_accumulate_grad_hook(_drop) for one in trained]
        for name, shape in shapes.items():
            for model in self.models.values():
                model.train(name == "step")
            inputs = phases["inputs"](self, shape)
            counter = LiveBytes()
            for model in self.models.values():
                counter.leave_out([*model.parameters(), *model.buffers()])
            with counter:
                # Of a step of several passes the second one is like all that follow: the gradients are there.
                for _ in range(2 if name == "step" and accumulates and keep_gradients else 1):
                    counter.restart()
                    phases[name](self, begin, inputs)
            run.peaks[name], run.flops[name] = counter.peak, counter.flops
            run.tokens[name] = shape.rows * shape.length * (2 if self.recipe.stage in ("reward", "dpo") else 1)
            for one in trained:
                one.grad = None
        for hook in hooks:
            hook.remove()
        return run

    # ---------------------------------------------------------------------------------------- models

    def _build(self, name: str, found: Architecture) -> PreTrainedModel:
        recipe, is_trained = self.recipe, name in ("policy", "critic")
        kind: Kind = "reward" if name in ("critic", "reward") or recipe.stage == "reward" else "causal"
        # torch's product of experts wants one dtype for tokens and weights, and autocast does not see it.
        experts = self.precision.bf16 and any(
            "num_experts" in key or "num_local_experts" in key for key in found.config
        )
        half = (
            self.precision.half_weights or experts or (name == "reward" and self.precision.bf16 and self.precision.gpu)
        )
        fields = {
            key: value for key, value in found.config.items() if key not in ("model_type", "architectures", "dtype")
        }
        config = AutoConfig.for_model(found.config["model_type"], **fields)
        config.use_cache = False
        if kind == "reward":
            config.num_labels, config.pad_token_id = 1, PAD
        auto = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
        kernel = recipe.model.attn_implementation
        model = auto.from_config(
            config,
            dtype=torch.bfloat16 if half else torch.float32,
            attn_implementation="eager" if kernel == "eager" else "sdpa",
        )
        if kind == "reward":
            model = score_in_fp32(model)
        lora = recipe.lora if recipe.stage != "pretrain" else None
        if is_trained and lora is not None:
            model = add_adapter(model, lora.model_copy(update={"load_in_4bit": False}), kind)
        elif not is_trained:
            model.requires_grad_(False)
        if is_trained and recipe.train.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            if lora is not None:
                model.enable_input_require_grads()
        return model

    # ---------------------------------------------------------------------------------------- stages with a trainer

    def make_trainer(self) -> Any:
        """The stage's own, as it stands before its first step, with what accelerate puts around the model."""
        build = _TRAINERS[self.recipe.stage]
        trainer = build(self)
        trainer.current_gradient_accumulation_steps = 1
        trainer.wrapped = trainer.accelerator.prepare_model(self.models["policy"], device_placement=False)
        return trainer

    def arguments(self, kind: type[TrainingArguments], **further: Any) -> TrainingArguments:
        return kind(
            output_dir=tempfile.gettempdir(),
            max_steps=1,
            bf16=self.precision.bf16,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            save_strategy="no",
            **further,
        )

    def batch(self, shape: Shape) -> dict[str, Any]:
        """What the stage's collator makes of rows of that shape, without storage."""
        rows = [_make_row(self.recipe.stage, shape) for _ in range(shape.rows)]
        return self.without_values(_COLLATORS[self.recipe.stage](self.recipe)(rows))

    def without_values(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs with the shapes of these."""
        return {
            name: self._mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.precision.bf16)


def _step(passes: _Passes, trainer: Any, inputs: dict[str, Any]) -> None:
    count = torch.tensor(inputs["input_ids"].numel())
    trainer.training_step(trainer.wrapped, dict(inputs), num_items_in_batch=count)


def _evaluate(passes: _Passes, trainer: Any, inputs: dict[str, Any]) -> None:
    with torch.no_grad():
        trainer.compute_loss(trainer.wrapped, dict(inputs))


_PHASES: dict[str, Callable[..., Any]] = {
    "begin": _Passes.make_trainer,
    "inputs": _Passes.batch,
    "step": _step,
    "evaluation": _evaluate,
}


# ------------------------------------------------------------------------------------------------ ppo


def _begin_ppo(passes: _Passes) -> actor_critic.ActorCritic:
    return actor_critic.ActorCritic(passes.models["policy"], passes.models["critic"])


def _completions(passes: _Passes, shape: Shape) -> dict[str, Any]:
    rows = [[0] * shape.length for _ in range(shape.rows)]
    inputs = collate(rows, [shape.prompt] * shape.rows, PAD)
    before = tuple(passes.without_values(dict(enumerate(inputs["before"]))).values())
    return passes.without_values(inputs) | {"before": before}


def _update(passes: _Passes, actor: actor_critic.ActorCritic, inputs: dict[str, Any]) -> None:
    spec = passes.recipe.ppo
    with passes.autocast():
        logps, _, values = actor("update", **inputs, temperature=spec.temperature)
    old = {name: torch.zeros_like(logps) for name in ("logps", "values", "advantages", "returns")}
    policy_loss, _ = losses.policy_loss(
        logps, old["logps"], old["advantages"], denominator=1.0, clip_low=spec.cliprange, clip_high=spec.cliprange
    )
    value_loss, _ = losses.value_loss(values, old["values"], old["returns"], denominator=1.0, clip=spec.cliprange_value)
    (policy_loss + spec.vf_coef * value_loss).backward()


def _score(passes: _Passes, actor: actor_critic.ActorCritic, inputs: dict[str, Any]) -> None:
    """Looking at the tokens of a rollout with policy, critic and reference, then the reward model over it."""
    temperature = passes.recipe.ppo.temperature
    with torch.no_grad(), passes.autocast():
        kept = actor("update", **inputs, temperature=temperature)
        if "reference" in passes.models:
            actor_critic.token_logps(passes.models["reference"], **inputs, temperature=temperature)
        else:
            actor("reference", **inputs, temperature=temperature)
        del kept
        if "reward" in passes.models:
            passes.models["reward"](input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])


_PPO_PHASES: dict[str, Callable[..., Any]] = {
    "begin": _begin_ppo,
    "inputs": _completions,
    "step": _update,
    "score": _score,
    "evaluation": _score,
}


# ------------------------------------------------------------------------------------------------ trainers and rows


def _further(passes: _Passes) -> dict[str, Any]:
    return {"eval_rows": None, "tokenizer": make_tokenizer(), "callbacks": []}


def _sft(passes: _Passes) -> Any:
    rows = Dataset.from_list([_make_row("sft", Shape(1, 8))])
    arguments = passes.arguments(sft_bridge.SFTConfig, **sft_bridge.ARGUMENTS)
    collator = _COLLATORS["sft"](passes.recipe)
    return sft_bridge.build_sft_trainer(
        passes.models["policy"], arguments, train_rows=rows, collator=collator, **_further(passes)
    )


def _reward(passes: _Passes) -> Any:
    rows = Dataset.from_list([_make_row("reward", Shape(1, 8, 4))])
    arguments = passes.arguments(reward_bridge.RewardConfig, **reward_bridge.ARGUMENTS)
    return reward_bridge.build_reward_trainer(passes.models["policy"], arguments, train_rows=rows, **_further(passes))


def _dpo(passes: _Passes) -> Any:
    rows = Dataset.from_list([_make_row("dpo", Shape(1, 8, 4))])
    arguments = passes.arguments(dpo_bridge.DPOConfig, **dpo_bridge.make_dpo_arguments(passes.recipe.dpo))
    return dpo_bridge.build_dpo_trainer(
        passes.models["policy"],
        passes.models.get("reference"),
        arguments,
        train_rows=rows,
        chosen_tokens=None,
        **_further(passes),
    )


def _pretrain(passes: _Passes) -> Any:
    rows = Dataset.from_list([_make_row("pretrain", Shape(1, 8))])
    return RecipeTrainer(
        model=passes.models["policy"],
        args=passes.arguments(TrainingArguments),
        data_collator=_COLLATORS["pretrain"](passes.recipe),
        train_dataset=rows,
        processing_class=make_tokenizer(),
    )


_TRAINERS = {"pretrain": _pretrain, "sft": _sft, "reward": _reward, "dpo": _dpo}
_COLLATORS: dict[str, Callable[[Recipe], Any]] = {
    "pretrain": lambda recipe: TokenCollator(PAD, packed=recipe.data.packing),
    "sft": lambda recipe: TokenCollator(PAD, packed=recipe.data.packing),
    "reward": lambda recipe: reward_bridge.WholeRowCollator(PAD),
    "dpo": lambda recipe: dpo_bridge.DataCollatorForPreference(pad_token_id=PAD),
}


def _make_row(stage: str, shape: Shape) -> dict[str, Any]:
    if stage in ("pretrain", "sft"):
        return {"input_ids": [0] * shape.length, "labels": [0] * shape.length, "seq_lengths": [shape.length]}
    completion = [0] * (shape.length - shape.prompt)
    return {"prompt_ids": [0] * shape.prompt, "chosen_ids": completion, "rejected_ids": completion}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer for trainers that want one and are given no text."""
    words = Tokenizer(WordLevel({"a": 0, "<pad>": PAD, "<eos>": 2}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


# ------------------------------------------------------------------------------------------------ counting


def count_weights(model: PreTrainedModel, recipe: Recipe) -> Weights:
    """Elements of a model; a tensor that stands twice in it, as tied embeddings do, counts once."""
    names = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    lora = recipe.lora if recipe.stage != "pretrain" else None
    parameters = list(model.parameters())
    in_layers = {id(one) for layer in layers for one in layer.parameters()}
    quantised = 0
    if lora is not None and lora.load_in_4bit:
        linear = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
        quantised = sum(module.weight.numel() for module in linear if not module.weight.requires_grad)
    return Weights(
        trained=sum(one.numel() for one in parameters if one.requires_grad),
        frozen=sum(one.numel() for one in parameters if not one.requires_grad),
        quantised=quantised,
        layer=max((sum(one.numel() for one in layer.parameters()) for layer in layers), default=0),
        root=sum(one.numel() for one in parameters if id(one) not in in_layers),
    )


def _drop(parameter: torch.Tensor) -> None:
    parameter.grad = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of libraries about a trainer that never trains."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
