"""Tokenizers and weights in place of those that a recipe names: real tokenizers where they are on this disk, small models always.

A stand-in has the architecture that the recipe's input has, two layers of it, and weights drawn from a seed; a reward model
has a trained head's shape. It is a folder as transformers writes them, so the stage reads it as it would the real one.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignment.data.templates import TEMPLATES, template_special_tokens, template_text
from alignment.errors import RecipeError
from alignment.launch.rehearse.families import shrink_config
from alignment.launch.rehearse.inputs import Origin
from alignment.models.build import draw_score_head
from alignment.models.load import resolve_start
from alignment.models.tokenizer import load_tokenizer, train_tokenizer
from alignment.recipe.model_spec import LoraSpec, NewTokenizerSpec

POSITIONS = 2048
_VOCAB_SIZE = 512
_BOS = "<s>"


def train_stand_in(
    texts: Iterable[str], templates: Sequence[str], special_tokens: Iterable[str]
) -> PreTrainedTokenizerBase:
    """A tokenizer trained on some rows, with the tokens that chat templates need. One for all inputs: their ids must agree.

    Args:
        templates: names or .jinja files; the first decides which tokens begin and end a text.
    """
    texts_of_files = [Path(name).read_text(encoding="utf-8") for name in templates if name.endswith(".jinja")]
    named = [name for name in templates if name in TEMPLATES]
    special = [*special_tokens, *(token for name in named for token in template_special_tokens(name))]
    needs_bos = any("bos_token" in text for text in texts_of_files)
    special += [_BOS] if needs_bos else []
    spec = NewTokenizerSpec(algorithm="bpe", vocab_size=_VOCAB_SIZE, special_tokens=tuple(dict.fromkeys(special)))
    tokenizer = train_tokenizer(texts, spec, templates[0] if templates[0] in TEMPLATES else "")
    if needs_bos and tokenizer.bos_token is None:
        tokenizer.bos_token = _BOS
    return tokenizer


def make_tokenizer(origin: Origin, stand_in: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """The real tokenizer of an input, or the stand-in with that input's chat template."""
    if origin.tokenizer is not None:
        return load_tokenizer(origin.tokenizer)
    tokenizer = copy.deepcopy(stand_in)
    is_file = template.endswith(".jinja")
    tokenizer.chat_template = Path(template).read_text(encoding="utf-8") if is_file else template_text(template)
    return tokenizer


def write_model(origin: Origin, tokenizer: PreTrainedTokenizerBase, folder: Path, seed: int) -> None:
    """A tiny model of the input's architecture, with its tokenizer beside it.

    Raises:
        RecipeError: transformers does not know the architecture, or it cannot be made small.
    """
    model = _build(origin, tokenizer, seed)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def write_lora_run(origin: Origin, tokenizer: PreTrainedTokenizerBase, folder: Path, seed: int, lora: LoraSpec) -> None:
    """What a finished LoRA run looks like to `lora.start: continue`: FOLDER/final, FOLDER/adapter, and the base beside it."""
    from alignment.models.lora import add_adapter, merge_adapter, save_adapter

    base = folder.with_name(f"{folder.name}-base")
    write_model(origin, tokenizer, base, seed)
    kind = "reward" if origin.kind == "reward" else "causal"
    adapted = add_adapter(_build(origin, tokenizer, seed), lora.model_copy(update={"load_in_4bit": False}), kind)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir(parents=True)
    save_adapter(adapted, folder / "adapter", resolve_start(str(base)))
    merged = merge_adapter(_build(origin, tokenizer, seed), folder / "adapter", torch.float32)
    merged.save_pretrained(str(folder / "final"))
    tokenizer.save_pretrained(str(folder / "final"))
    (folder / "recipe.yaml").write_text("# stands in for a LoRA run\n", encoding="utf-8")


def _build(origin: Origin, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    config = _make_config(origin, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if origin.kind == "causal":
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        draw_score_head(model, seed)
        return model


def _make_config(origin: Origin, tokenizer: PreTrainedTokenizerBase) -> Any:
    kind = origin.config.get("model_type")
    try:
        # With the architecture's own defaults first: a name alone gives no sizes to shrink.
        fields = AutoConfig.for_model(kind).to_dict() | dict(origin.config)
        small = shrink_config(fields, POSITIONS)
        small.pop("model_type")
        return AutoConfig.for_model(kind, **small, **_token_ids(tokenizer))
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"{origin.path}: {kind} cannot be made small ({reason}); an architecture of transformers was expected."
        ) from error


def _token_ids(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, int | None]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def collect_texts(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """All text in some rows, for training a tokenizer."""
    return [text for row in rows for text in _texts_in(row)]


def _texts_in(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts_in(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _texts_in(item)


def longest_row(rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest row, with room for what a chat template adds."""
    added = 48
    return max(
        (
            sum(len(ids) + 8 for ids in tokenizer(texts).input_ids) + added
            for row in rows
            if (texts := list(_texts_in(row)))
        ),
        default=added,
    )
