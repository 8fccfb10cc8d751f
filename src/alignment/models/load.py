"""From the `path` of a recipe to a model: what kind of folder it names, and its weights.

A path may name a run (runs/STUDY/sft), its final/ or adapter/, any folder that transformers can load, or a Hub id. An
adapter is never loaded as if it were a model: it is put on the base that it names, whose weights must be those it was
trained on. Which of this is then trained is train/policy.py's.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.integrations import deepspeed as hf_deepspeed

from alignment.errors import ArtifactError
from alignment.models.attention import register_attention
from alignment.models.hashes import hash_weights
from alignment.models.score_head import score_in_fp32
from alignment.recipe.places import means_local_model

Kind = Literal["causal", "reward"]
ADAPTER_CONFIG = "adapter_config.json"
BASE_FILE = "base.json"  # beside an adapter of ours: what it was trained on
AUTO_CLASSES = {"causal": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


@dataclass(frozen=True)
class Start:
    """What a path names.

    Attributes:
        model: folder or Hub id of the whole model; of an adapter-only folder, its base.
        adapter: folder of an adapter that the result consists of beside `model`; None for a whole model.
        trained_adapter: of a LoRA run, the adapter that its final/ was made with; None otherwise.
        run_dir: the run folder, where the path belongs to one.
    """

    path: str
    model: str
    revision: str | None = None
    adapter: Path | None = None
    trained_adapter: Path | None = None
    run_dir: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether the whole model lies on this disk."""
        return Path(self.model).is_dir()

    @property
    def tokenizer(self) -> str:
        """Where its tokenizer is."""
        return str(self.adapter) if self.adapter and (self.adapter / "tokenizer_config.json").is_file() else self.model


def resolve_start(path: str, revision: str | None = None) -> Start:
    """What `path` names.

    Raises:
        ArtifactError: a folder that is not there or holds no model; an adapter whose base is gone or has changed.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        if means_local_model(path):
            raise ArtifactError(
                f"{path}: no such folder; a run's final/ or a model's folder was expected. Train it first, or correct the path."
            )
        return Start(path, path, revision)
    if (folder / "final").is_dir():
        folder = folder / "final"
    run_dir = (
        folder.parent if folder.name in ("final", "adapter") and (folder.parent / "recipe.yaml").is_file() else None
    )
    if (folder / ADAPTER_CONFIG).is_file():
        base, base_revision = read_base(folder)
        return Start(path, base, base_revision, adapter=folder, trained_adapter=folder, run_dir=run_dir)
    if not (folder / "config.json").is_file():
        raise ArtifactError(
            f"{path}: found neither config.json nor {ADAPTER_CONFIG} in {folder}; a finished model was expected. "
            "An unfinished run goes on with the command that started it."
        )
    adapter = run_dir / "adapter" if run_dir else None
    trained = adapter if adapter and (adapter / ADAPTER_CONFIG).is_file() else None
    return Start(path, str(folder), trained_adapter=trained, run_dir=run_dir)


def read_base(adapter: Path) -> tuple[str, str | None]:
    """Base and revision that an adapter names.

    Raises:
        ArtifactError: it names none, its folder is gone, or the weights there are not those it was trained on.
    """
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not base:
        raise ArtifactError(
            f"{adapter / ADAPTER_CONFIG}: names no base_model_name_or_path; the adapter's base was expected."
        )
    noted = json.loads((adapter / BASE_FILE).read_text(encoding="utf-8")) if (adapter / BASE_FILE).is_file() else {}
    if noted.get("local") and not Path(base).is_dir():
        raise ArtifactError(
            f"{adapter}: its base {base} is not there; the folder was expected, from the current one. Run the command where it lies."
        )
    if noted.get("weights_hash") and Path(base).is_dir() and hash_weights(Path(base)) != noted["weights_hash"]:
        raise ArtifactError(
            f"{adapter}: the weights in {base} are not those that it was trained on (hash {noted['weights_hash'][:16]} was "
            "expected). Train the adapter again, or bring the base back."
        )
    return base, revision


@contextlib.contextmanager
def whole_weights() -> Iterator[None]:
    """Models made inside are whole on every rank, also where ZeRO-3 would deal out their parameters as they are made."""
    config = hf_deepspeed._hf_deepspeed_config_weak_ref
    hf_deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        hf_deepspeed._hf_deepspeed_config_weak_ref = config


def load_weights(kind: Kind, path: str, *, revision: str | None = None, **further: Any) -> PreTrainedModel:
    """A transformers model with a language head, or with one score.

    Args:
        further: dtype, attn_implementation, trust_remote_code, quantization_config, as transformers takes them.

    Raises:
        ArtifactError: nothing can be loaded from there, or weights are missing (but for a new score head).
    """
    register_attention()
    labels = {"num_labels": 1} if kind == "reward" else {}
    try:
        model, info = AUTO_CLASSES[kind].from_pretrained(
            path, revision=revision, use_safetensors=True, output_loading_info=True, **labels, **further
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        pickles = sorted(Path(path).glob("*.bin")) if Path(path).is_dir() else []
        if pickles and not list(Path(path).glob("*.safetensors")):
            raise ArtifactError(
                f"{pickles[0]}: a pickle, which may run code when it is read; safetensors were expected. Convert it where you trust it: "
                "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)."
            ) from error
        raise ArtifactError(
            f"{path}: cannot be loaded ({reason}); a model was expected. Correct model.path."
        ) from error
    missing = sorted(name for name in info["missing_keys"] if not (kind == "reward" and name.startswith("score.")))
    if missing or info["mismatched_keys"]:
        wrong = missing or sorted(str(key) for key in info["mismatched_keys"])
        raise ArtifactError(
            f"{path}: {len(wrong)} weights of {type(model).__name__} are missing or of another shape ({', '.join(wrong[:3])}); "
            "all were expected. The folder is not whole, or another kind of model."
        )
    model.has_new_head = any(name.startswith("score.") for name in info["missing_keys"])
    return score_in_fp32(model) if kind == "reward" else model


def read_saved_dtype(start: Start, wanted: str) -> torch.dtype:
    """The dtype of the weights to save: as asked, or that of the weights started from."""
    if wanted != "auto":
        return getattr(torch, wanted)
    config = Path(start.model) / "config.json"
    if config.is_file():
        named = json.loads(config.read_text(encoding="utf-8"))
        return getattr(torch, named.get("dtype") or named.get("torch_dtype") or "float32")
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(start.model, revision=start.revision).dtype or torch.float32
