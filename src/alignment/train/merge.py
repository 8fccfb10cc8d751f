"""An adapter-only run to a whole model in 16 bits: merged into the base that it names, compared, read back, and given a run folder.

The adapter is compared on the base that it was trained on: a 4-bit one where bitsandbytes is installed, else the 16-bit original,
and the receipt says which. A merge is a rounding of its own, so it is measured and not assumed (peft issue 2321: a score lost six points by it).
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from alignment.errors import ArtifactError, RecipeError
from alignment.models.build import fit_embeddings
from alignment.models.hashes import hash_weights
from alignment.models.load import ADAPTER_CONFIG, Kind, Start, load_weights, resolve_start
from alignment.models.lora import merge_put_adapter, put_adapter
from alignment.models.probe import TOLERANCE, make_prompts, probe, probe_gap
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.loader import load_recipe
from alignment.recipe.resolved import recipe_hash, recipe_text
from alignment.recipe.schema import Recipe
from alignment.report.card import write_card
from alignment.report.receipt import read_receipt, receipt_hash, write_receipt
from alignment.report.run_files import DATA_MANIFEST, RECIPE, SAMPLES, read_json
from alignment.report.run_report import write_report
from alignment.train.artifacts import UNVERIFIED, Verifier
from alignment.train.finish import count_parameters
from alignment.train.policy import has_bitsandbytes, quantization
from alignment.train.run_folder import write_exit

GREEDY_TOKENS = 32
MAX_TEXT_PROMPTS = 8
LEAST_AGREEMENT = 0.95
LEAST_AGREEMENT_WITH_4_BITS = 0.8  # other weights: a model that is unsure says another token


@dataclass(frozen=True)
class Comparison:
    """How far the merged model is from the adapter on its base."""

    base: str
    revision: str | None
    compared_with: str
    gap: float  # greatest difference of a logit, relative to the greatest logit
    agreement: float  # share of greedily chosen tokens that both choose
    positions: int


def merge_run(run_dir: Path, out: Path, dtype: str, *, command: Sequence[str] = ()) -> Comparison:
    """Merges, compares, writes `out` as a run folder of its own, and has a fresh process read it back.

    Raises:
        RecipeError: the run is a whole model already, or `out` is there.
        ArtifactError: the base is gone or another, the merged model differs by more than rounding, or does not reload.
    """
    recipe, start = _read_adapter_run(run_dir)
    if out.exists():
        raise RecipeError(f"{out}: exists and is not overwritten. Give --out DIR, or remove it.")
    kind: Kind = "reward" if recipe.stage == "reward" else "causal"
    tokenizer = load_tokenizer(str(start.adapter))
    adapted = put_adapter(_load_base(start, kind, tokenizer), start.adapter)
    sequences = _make_sequences(adapted, tokenizer, kind, run_dir)
    quantized = recipe.lora.load_in_4bit and has_bitsandbytes()
    expected = _score(_load_quantized(start, kind, tokenizer) if quantized else adapted, sequences)
    merged = merge_put_adapter(adapted, getattr(torch, dtype))
    found = _score(merged, sequences)
    with_base = "its 4-bit base" if quantized else "its base in fp32"
    if recipe.lora.load_in_4bit and not quantized:
        with_base += " (it was trained on a 4-bit one, which needs bitsandbytes)"
    compared = Comparison(start.model, start.revision, f"the adapter on {with_base}", *_compare(expected, found))
    _check(compared, dtype, quantized)
    _write_run(run_dir, out, recipe, merged, tokenizer, kind, compared, command)
    return compared


def _read_adapter_run(run_dir: Path) -> tuple[Recipe, Start]:
    if not (run_dir / RECIPE).is_file():
        raise ArtifactError(f"{run_dir}: no {RECIPE}; a run's folder was expected. Correct the path.")
    read_receipt(run_dir)
    if not (run_dir / "final" / ADAPTER_CONFIG).is_file():
        raise RecipeError(
            f"{run_dir}: final/ is a whole model already; an adapter-only run (lora.save: adapter) was expected."
        )
    return load_recipe(run_dir / RECIPE, ["lora.save=merged"]), resolve_start(str(run_dir / "final"))


def _load_base(start: Start, kind: Kind, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    base = load_weights(kind, start.model, revision=start.revision, dtype=torch.float32)
    fit_embeddings(base, tokenizer)
    return base.eval()


def _load_quantized(start: Start, kind: Kind, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    base = load_weights(kind, start.model, revision=start.revision, **quantization())
    fit_embeddings(base, tokenizer)
    return put_adapter(base, start.adapter)


# ------------------------------------------------------------------------------------------------ comparing


def _make_sequences(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: Kind, run_dir: Path
) -> list[tuple[list[int], int]]:
    """Token ids, and how many of them are the prompt: what the adapted model says to the fixed prompts and the run's own samples."""
    config = model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None) or 10**6
    prompts = make_prompts(config.vocab_size, longest)
    texts = [sample["prompt"] for sample in read_json(run_dir / SAMPLES).get("after", ())[:MAX_TEXT_PROMPTS]]
    prompts += [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    if kind == "reward":
        return [(prompt, len(prompt)) for prompt in prompts]
    sequences = []
    for prompt in prompts:
        room = min(GREEDY_TOKENS, longest - len(prompt))
        if room > 0:
            ids = torch.tensor([prompt])
            said = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                min_new_tokens=room,
                do_sample=False,
            )
            sequences.append((said[0].tolist(), len(prompt)))
    return sequences


def _score(model: PreTrainedModel, sequences: Sequence[tuple[list[int], int]]) -> list[torch.Tensor]:
    """Logits [T, V] of the positions that choose each said token, or the score [1, 1], in fp32 on the CPU."""
    scores = []
    device = next(model.parameters()).device
    with torch.no_grad():
        for ids, prompt_length in sequences:
            ids_BT = torch.tensor([ids], device=device)
            logits = (
                model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False).logits.float().cpu()
            )
            scores.append(logits if logits.dim() == 2 else logits[0, prompt_length - 1 : -1])
    return scores


def _compare(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> tuple[float, float, int]:
    """Gap, agreement and the number of positions."""
    gap, same, positions = 0.0, 0, 0
    for one_TV, other_TV in zip(expected, found, strict=True):
        greatest = torch.maximum(one_TV.abs().max(), other_TV.abs().max()).clamp(min=1e-6)
        difference = ((one_TV - other_TV).abs().max() / greatest).item()
        gap = max(gap, difference) if difference == difference else float("inf")
        same += int((one_TV.argmax(-1) == other_TV.argmax(-1)).sum())
        positions += one_TV.shape[0]
    return gap, same / max(positions, 1), positions


def _check(compared: Comparison, dtype: str, quantized: bool) -> None:
    limit = TOLERANCE["nf4" if quantized else dtype]
    least = LEAST_AGREEMENT_WITH_4_BITS if quantized else LEAST_AGREEMENT
    if not compared.gap <= limit or compared.agreement < least:
        raise ArtifactError(
            f"{compared.base}: merged in {dtype}, it differs from {compared.compared_with}: {compared.gap:.2g} of the greatest logit, "
            f"and {compared.agreement:.1%} of {compared.positions} greedy tokens are the same; at most {limit:.2g} and at least "
            f"{least:.0%} were expected. Nothing was written; publish the adapter, or give --dtype float32."
        )


# ------------------------------------------------------------------------------------------------ writing


def _write_run(
    run_dir: Path,
    out: Path,
    recipe: Recipe,
    merged: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    compared: Comparison,
    command: Sequence[str],
) -> None:
    folder = out / UNVERIFIED / "final"
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(str(folder))
    manifest = read_json(run_dir / DATA_MANIFEST)
    merged.config.dtype, merged.config.use_cache = merged.dtype, True
    if kind == "causal" and manifest.get("stop_ids"):
        stop_ids = manifest["stop_ids"]
        merged.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=stop_ids[0] if len(stop_ids) == 1 else stop_ids,
            pad_token_id=manifest["pad_id"],
        )
    merged.save_pretrained(str(folder))
    seen = _read_back(folder, merged, kind)
    shutil.move(str(folder), str(out / "final"))
    (out / UNVERIFIED).rmdir()
    (out / RECIPE).write_text(recipe_text(recipe), encoding="utf-8")
    for name in (DATA_MANIFEST, SAMPLES):
        if (run_dir / name).is_file():
            shutil.copy2(run_dir / name, out / name)
    write_receipt(out, _make_receipt(run_dir, out, recipe, compared, seen, command))
    write_exit(out, 0, "merged", " ".join(command))
    write_card(out)
    write_report(out)


def _read_back(folder: Path, merged: PreTrainedModel, kind: Kind) -> dict[str, Any]:
    """What a fresh process sees in the folder. Raises ArtifactError when that is not the model in memory."""
    config = merged.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    verifier = Verifier()
    request = {
        "folder": str(folder.resolve()),
        "kind": kind,
        "vocab_size": config.vocab_size,
        "max_positions": positions,
    }
    try:
        (answer,) = verifier.ask([request])
    finally:
        verifier.close()
    gap = probe_gap(probe(merged, make_prompts(config.vocab_size, positions)), answer["probe"])
    if not gap <= TOLERANCE[answer["dtype"]]:
        raise ArtifactError(
            f"{folder}: a fresh process scores the fixed prompts differently: {gap:.2g} of the greatest value."
        )
    return answer | {"gap": gap}


def _make_receipt(
    run_dir: Path, out: Path, recipe: Recipe, compared: Comparison, seen: dict[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    """The adapter run's receipt, with what the merging made of it."""
    old = read_receipt(run_dir)
    note = (
        f"Merged into {compared.base}" + (f" at {compared.revision}" if compared.revision else "")
        + f": {compared.gap:.2g} of the greatest logit from {compared.compared_with}, {compared.agreement:.1%} of "
        f"{compared.positions} greedy tokens the same. The metrics were measured before merging."
    )  # fmt: skip
    facts = {
        "recipe_hash": recipe_hash(recipe),
        "command": " ".join(command),
        "parents": [
            *old.get("parents", ()),
            {"path": str(run_dir), "kind": "adapter", "receipt_hash": receipt_hash(old)},
        ],
        "weights_hash": hash_weights(out / "final"),
        "num_parameters": count_parameters(out / "final"),
        "dtypes": old.get("dtypes", {}) | {"saved": seen["dtype"]},
        "probe": seen["probe"] | {"dtype": seen["dtype"]},
        "reload_gap": seen["gap"],
        "merge": {key: value for key, value in asdict(compared).items() if value is not None},
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notes": [*old.get("notes", ()), note],
    }
    return json.loads(json.dumps(old | facts))
