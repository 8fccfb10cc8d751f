"""final/ and adapter/: written whole, read back by a fresh process, and only then given their names.

The scores that the fresh process must give are taken from the live model, whatever shards it is in, so a gather that
loses a part, an adapter that is not merged and a head that is not saved all show here.
"""

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, Trainer

from alignment.errors import ArtifactError
from alignment.models.build import fit_embeddings
from alignment.models.hashes import hash_weights
from alignment.models.load import AUTO_CLASSES, BASE_FILE, read_base, whole_weights
from alignment.models.lora import merge_adapter, save_adapter
from alignment.models.probe import TOLERANCE, make_prompts, probe, probe_gap, without_autocast
from alignment.train.policy import Policy, load_whole
from alignment.train.run_folder import share_weights
from alignment.train.training import Training

logger = logging.getLogger(__name__)
UNVERIFIED = "unverified"
VERIFY_TIMEOUT_SECONDS = 1800
# A fresh process must not take itself for a rank of this run.
_LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
_LAUNCH_PREFIXES = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "PARALLELISM_CONFIG_")


@dataclass(frozen=True)
class Saved:
    """What was written and how far the fresh process was from the live model."""

    probe: dict[str, Any]  # as the fresh process computed it; a run that starts from here compares with it
    gap: float  # relative to the greatest value
    weights_hash: str | None
    seconds: float = 0.0


class Verifier:
    """The fresh process; started early, so that its imports pass while this one still measures."""

    def __init__(self) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in _LAUNCH_VARIABLES and not name.startswith(_LAUNCH_PREFIXES)
        }
        self._elsewhere = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "alignment.models.verify"],
            cwd=self._elsewhere.name,
            env=environment | {"CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The answers of `alignment.models.verify`, one a folder. Raises ArtifactError when one cannot be loaded."""
        out, errors = self._process.communicate(json.dumps(requests) + "\n", timeout=VERIFY_TIMEOUT_SECONDS)
        answers = json.loads(out) if out.strip().startswith("[") else [{"error": errors.strip()[-500:]}]
        if "error" in answers[-1]:
            raise ArtifactError(
                f"{requests[len(answers) - 1]['folder']}: a fresh process cannot load it ({answers[-1]['error']}); a whole model was expected. "
                "The checkpoints are kept: the same command writes it again."
            )
        return answers

    def close(self) -> None:
        """Ends the process, whether it was asked or not."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()
        self._elsewhere.cleanup()


def live_probe(model: Any) -> dict[str, Any]:
    """The fixed prompts on a model as it is trained. Every rank must call it."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    prompts = make_prompts(config.vocab_size, getattr(config, "max_position_embeddings", None))
    with without_autocast(model):
        return probe(model, prompts)


def live_dtype(model: Any, training: Training) -> str:
    """The coarsest dtype that a live probe is computed in: engines that shard cast for every forward."""
    if getattr(model, "is_loaded_in_4bit", False):
        return "nf4"
    engine = training.context.strategy in ("zero1", "zero2", "zero3", "fsdp2")
    half = {parameter.dtype for parameter in model.parameters()} & {torch.bfloat16, torch.float16}
    return "bfloat16" if (engine and training.bf16) or half else "float32"


def write_result(
    training: Training, trainer: Trainer, policies: Sequence[Policy], verifier: Verifier | None
) -> list[Saved] | None:
    """Writes and verifies the folder of each policy: final/, and adapter/ or critic/. Every rank must call it; rank 0 gets results.

    Raises:
        ArtifactError: what a fresh process loads is not the live model. The folders stay in unverified/.
    """
    lives = [policy.live(trainer) for policy in policies]
    probes = [live_probe(live) for live in lives]
    dtypes = [live_dtype(live, training) for live in lives]
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if training.context.rank != 0:
        return None
    folder = training.context.run_dir / UNVERIFIED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    requests = [_write_part(training, trainer, policy, folder, state) for policy in policies]
    del state
    answers = verifier.ask(requests)
    gaps = [
        _check_reloaded(training, policy, folder / policy.folder, one, answer, dtype)
        for policy, one, answer, dtype in zip(policies, probes, answers, dtypes, strict=True)
    ]
    _give_names(training.context.run_dir, folder)
    return [
        Saved(answer["probe"] | {"dtype": answer["dtype"]}, gap, hash_weights(training.context.run_dir / policy.folder))
        for policy, answer, gap in zip(policies, answers, gaps, strict=True)
    ]


def _write_part(
    training: Training, trainer: Trainer, policy: Policy, folder: Path, state: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Writes a policy's folder, and its adapter's, and returns what the fresh process is asked."""
    model = policy.trained(trainer)
    if policy.part:
        prefix = f"{policy.part}."
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    adapter = folder / policy.adapter_folder if hasattr(model, "peft_config") else None
    if adapter is not None:
        _write_adapter(model, policy, adapter, state)
    return _write_final(training, model, policy, folder / policy.folder, adapter, state)


def _check_reloaded(
    training: Training, policy: Policy, folder: Path, live: dict[str, Any], answer: dict[str, Any], dtype: str
) -> float:
    """How far the fresh process was from the live model."""
    # One score may be near zero, where a gap relative to itself says nothing (0.69 seen): the body is compared, and not the head.
    names = ("hidden",) if dtype == "nf4" and policy.kind == "reward" else ("outputs", "hidden")
    gap = probe_gap(live, answer["probe"], names)
    tolerance = max(TOLERANCE[name] for name in (dtype, str(policy.saved_dtype).removeprefix("torch.")))
    if dtype == "nf4":
        logger.info("%s: in 16 bits it differs from the 4-bit model by %.2g of the greatest value", folder.name, gap)
    if not gap <= tolerance:
        raise ArtifactError(
            f"{folder}: a fresh process scores the fixed prompts differently from the trained model: {gap:.2g} of the "
            f"greatest value; at most {tolerance:.2g} is rounding. The checkpoints are kept; the folder is for looking at only."
        )
    return gap


def write_trial(
    training: Training,
    trainer: Trainer,
    policy: Policy,
    folder: Path,
    state: Mapping[str, torch.Tensor] | None,
) -> Mapping[str, torch.Tensor]:
    """Writes a policy's result as it is before step 1; returns the weights that were written, none of an adapter. Rank 0 alone.

    Args:
        state: whole tensors by their names in the trainer's module; None writes only what lies beside the weights.
    """
    model = policy.trained(trainer)
    training.tokenizer.save_pretrained(str(folder))
    if state is None:
        model.config.save_pretrained(str(folder))
        return {}
    if policy.part:
        prefix = f"{policy.part}."
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if hasattr(model, "peft_config"):
        save_adapter(model, folder, policy.base, state)
        return {}
    _save_whole(_make_skeleton(model, policy), folder, training, policy, state)
    return state


def _write_adapter(model: Any, policy: Policy, folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    sharded = {name: value for name, value in state.items() if "lora_" in name or "modules_to_save" in name}
    save_adapter(model, folder, policy.base, sharded)
    zero = [name for name, value in sharded.items() if "lora_B.default" in name and not value.any()]
    if zero:
        raise ArtifactError(
            f"{folder}: {len(zero)} update matrices are zero everywhere after training ({zero[0]}); each was to be trained. "
            "Look at train.learning_rate and lora.target_modules."
        )


def _write_final(
    training: Training,
    trained: Any,
    policy: Policy,
    folder: Path,
    adapter: Path | None,
    state: Mapping[str, torch.Tensor],
) -> dict[str, Any]:
    """Writes the folder and returns what the fresh process is asked."""
    training.tokenizer.save_pretrained(str(folder))
    # A critic is never an adapter alone: it is loaded as it lies there.
    whole = adapter is None or training.recipe.lora.save == "merged" or policy.part == "critic"
    if adapter is None:
        _save_whole(_make_skeleton(trained, policy), folder, training, policy, state)
    elif whole:
        with whole_weights():
            base = load_whole(policy.base, policy.kind, torch.float32)
            fit_embeddings(base, training.tokenizer)
            _save_whole(merge_adapter(base, adapter, policy.saved_dtype), folder, training, policy, None)
    else:
        for path in adapter.iterdir():
            shutil.copy2(path, folder / path.name)
    config = trained.config.get_text_config()
    request = {
        "folder": str(folder.resolve()),
        "kind": policy.kind,
        "vocab_size": config.vocab_size,
        "max_positions": getattr(config, "max_position_embeddings", None),
    }
    if not whole:
        base_path, revision = read_base(folder)
        local = json.loads((folder / BASE_FILE).read_text())["local"]
        request |= {"base": str(Path(base_path).resolve()) if local else base_path, "revision": revision}
    return request


def _make_skeleton(model: PreTrainedModel, policy: Policy) -> PreTrainedModel:
    """A model of the plain class without memory, to save a state dict with: wrapped ones name themselves otherwise."""
    with torch.device("meta"), whole_weights():
        # A config of its own: saving changes it, and training goes on with the model's.
        return AUTO_CLASSES[policy.kind].from_config(copy.deepcopy(model.config))


def _save_whole(
    model: PreTrainedModel,
    folder: Path,
    training: Training,
    policy: Policy,
    state: Mapping[str, torch.Tensor] | None,
) -> None:
    if state is not None:
        state = {
            name: value.to(policy.saved_dtype) if value.is_floating_point() else value for name, value in state.items()
        }
    model.config.dtype = policy.saved_dtype
    model.config.use_cache = True
    if policy.kind == "causal":
        stop_ids = training.prepared.manifest["stop_ids"]
        model.generation_config = GenerationConfig(
            bos_token_id=training.tokenizer.bos_token_id,
            eos_token_id=stop_ids[0] if len(stop_ids) == 1 else stop_ids,
            pad_token_id=training.prepared.manifest["pad_id"],
        )
    model.save_pretrained(str(folder), state_dict=state)
    share_weights(folder)


def _give_names(run_dir: Path, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        target = run_dir / path.name
        shutil.rmtree(target, ignore_errors=True)
        path.rename(target)
    folder.rmdir()
