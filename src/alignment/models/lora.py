"""LoRA: adapters put on a model, saved with a base that anybody can find, and merged into whole weights.

The only place of this project that imports peft, beside the loading lines that the verification runs.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from transformers import PreTrainedModel

from alignment.errors import ArtifactError, RecipeError
from alignment.models.hashes import hash_weights
from alignment.models.load import ADAPTER_CONFIG, BASE_FILE, Kind, Start
from alignment.recipe.model_spec import LoraSpec, SftLoraSpec

TASKS = {"causal": TaskType.CAUSAL_LM, "reward": TaskType.SEQ_CLS}
ACTIVE = "default"
REFERENCE = "ref"  # TRL 1.16 gives this name to the frozen copy of an adapter that DPO goes on with
# What decides an adapter; a recipe that continues one must agree with it.
SHAPE = ("r", "lora_alpha", "target_modules", "use_dora", "use_rslora")


def add_adapter(model: PreTrainedModel, spec: LoraSpec, kind: Kind, *, fp32_adapter: bool = True) -> PeftModel:
    """A fresh adapter on `model`: its output is the model's until the first step.

    Args:
        kind: of a reward model the score head is trained and saved whole; peft does so for SEQ_CLS and says nothing otherwise.
        fp32_adapter: keep the adapter in fp32 on a 16-bit model; sharding engines want one dtype.
    """
    if spec.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(
        task_type=TASKS[kind],
        r=spec.r,
        lora_alpha=spec.lora_alpha,
        lora_dropout=spec.lora_dropout if isinstance(spec, SftLoraSpec) else 0.0,
        target_modules=spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules),
        modules_to_save=list(spec.modules_to_save) or None,
        use_dora=spec.use_dora,
        use_rslora=spec.use_rslora,
    )
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=fp32_adapter)
    except ValueError as error:
        raise RecipeError(
            f"lora: {str(error).splitlines()[0]} Correct lora.target_modules or lora.modules_to_save."
        ) from error


def continue_adapter(model: PreTrainedModel, adapter: Path, spec: LoraSpec) -> PeftModel:
    """The trained adapter in a folder, to be trained on.

    Raises:
        RecipeError: the recipe describes another adapter.
    """
    peft_model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    config = peft_model.peft_config[ACTIVE]
    for name in SHAPE:
        wanted, found = getattr(spec, name), getattr(config, name)
        if name == "target_modules" and wanted == "all-linear":
            continue
        same = (
            set(wanted) == set(found) if name == "target_modules" and not isinstance(wanted, str) else wanted == found
        )
        if not same:
            raise RecipeError(
                f"lora.{name}: {wanted}; the adapter in {adapter} has {found}, and lora.start: continue goes on with it as it is. "
                "Write that value, or start: merge."
            )
    return peft_model


def put_trained_adapter(model: PreTrainedModel, adapter: Path, *, trainable: bool, fp32_adapter: bool) -> PeftModel:
    """The trained adapter in a folder on a model that is in memory, whatever shape it has; its score head comes with it.

    Raises:
        ArtifactError: the adapter does not fit.
    """
    try:
        return PeftModel.from_pretrained(
            model, str(adapter), is_trainable=trainable, autocast_adapter_dtype=fp32_adapter
        )
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{adapter}: {str(error).splitlines()[0]}; an adapter of this base was expected."
        ) from error


def save_adapter(model: PeftModel, folder: Path, base: Start, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Writes adapter_model.safetensors, adapter_config.json with the base by name, and base.json with its weights' hash.

    Args:
        state: whole tensors by the model's own names, where the model itself is sharded.

    Raises:
        ArtifactError: a tensor that is empty, or an update that is zero everywhere after training.
    """
    weights = get_peft_model_state_dict(
        model, state_dict=dict(state) if state is not None else None, adapter_name=ACTIVE
    )
    for name, tensor in weights.items():
        if tensor.numel() == 0:
            raise ArtifactError(
                f"{folder}: {name} is empty; a whole tensor was expected. The launch did not gather it."
            )
    model.save_pretrained(
        str(folder), selected_adapters=[ACTIVE], state_dict=dict(state) if state is not None else None
    )
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": name_base(base), "revision": base.revision, "inference_mode": True}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    facts = {"path": name_base(base), "revision": base.revision, "local": base.is_local}
    if base.is_local:
        facts["weights_hash"] = hash_weights(Path(base.model))
    (folder / BASE_FILE).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # peft's; the card is the run's


def name_base(base: Start) -> str:
    """The base as other machines can find it: a Hub id, or its folder from the current one."""
    return os.path.relpath(base.model) if base.is_local and os.path.isabs(base.model) else base.model


def merge_adapter(model: PreTrainedModel, adapter: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model with an adapter's updates added to its weights, in `dtype`. The sum is made in fp32.

    Raises:
        ArtifactError: the adapter does not fit, or the merged weights are not finite.
    """
    return merge_put_adapter(put_adapter(model.to(torch.float32), adapter), dtype)


def put_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """The model with a trained adapter on it, not to be trained on.

    Raises:
        ArtifactError: the adapter does not fit.
    """
    try:
        return PeftModel.from_pretrained(model, str(adapter)).eval()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(
            f"{adapter}: {str(error).splitlines()[0]}; an adapter of this base was expected."
        ) from error


def merge_put_adapter(model: PeftModel, dtype: torch.dtype) -> PreTrainedModel:
    """As `merge_adapter`, of an adapter that is on its model already."""
    try:
        return model.merge_and_unload(safe_merge=True).to(dtype)
    except ValueError as error:
        raise ArtifactError(f"{str(error).splitlines()[0]}; finite weights were expected after merging.") from error


class ReferenceView:
    """The model that an adapter was put on, or the frozen copy of an adapter that is continued, as a model to measure.

    It has no weights of its own: a forward pass switches the adapter, and switches it back.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._switched():
            return self._model(*args, **kwargs)

    @contextmanager
    def _switched(self) -> Iterator[None]:
        if REFERENCE not in self._model.peft_config:
            with self._model.disable_adapter():
                yield
            return
        self._model.set_adapter(REFERENCE, inference_mode=True)
        try:
            yield
        finally:
            self._model.set_adapter(ACTIVE)


@contextmanager
def adapters_off(model: PreTrainedModel) -> Iterator[None]:
    """The model below its adapters, for a forward pass without gradients; a model without any is as it is.

    peft's own switch also turns `requires_grad` off and on again, of every adapter: here nothing but the sum is left out.
    """
    tuned = [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    before = [module._disable_adapters for module in tuned]
    for module in tuned:
        module._disable_adapters = True
    try:
        yield
    finally:
        for module, off in zip(tuned, before, strict=True):
            module._disable_adapters = off


def load_adapter_weights(model: PeftModel, folder: Path) -> None:
    """Puts the weights of a saved adapter into the active one of a model.

    Raises:
        ArtifactError: the folder holds no adapter, or one of another shape.
    """
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ArtifactError(f"{path}: not found; the adapter of a checkpoint was expected.")
    try:
        result = set_peft_model_state_dict(model, load_file(str(path)), adapter_name=ACTIVE)
    except (RuntimeError, KeyError) as error:
        raise ArtifactError(f"{folder}: {str(error).splitlines()[0]}; an adapter of this run was expected.") from error
    if result.unexpected_keys:
        raise ArtifactError(
            f"{folder}: {result.unexpected_keys[0]} is not of this model; an adapter of this run was expected."
        )
