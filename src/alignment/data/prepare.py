"""Recipe and files to the folder that training reads: mixed, encoded, packed, memory-mapped, and keyed by its inputs.

The folder's name is a hash of everything that decides its content: the sources' bytes, the recipe's data and chat sections,
the tokenizer, the template, the libraries and this code. It is computed once however many processes ask, and appears under
its name only when it is whole. No process group is needed here, and no model is loaded.

    KEY/manifest.json    reports, hashes, stop and pad ids (no time and no path of this machine: it is the same everywhere)
    KEY/train.arrow      KEY/eval.arrow      KEY/tokenizer/
    rows-KEY.arrow       rows that were streamed (stream.py), for all folders beside it
"""

import copy
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa
import tokenizers
import transformers
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from alignment.data.chat import Chat, load_chat, load_plain_chat
from alignment.data.doctor import examine
from alignment.data.encode import EncodeSpec
from alignment.data.formats import check_columns
from alignment.data.mixer import check_overlap
from alignment.data.prepare_split import Split, is_packed, prepare_split, prepare_texts
from alignment.data.sources import FoundSource, find_source
from alignment.data.stream import read_sources
from alignment.errors import DataError, RecipeError
from alignment.recipe.data_spec import STAGE_FORMATS, SourceSpec
from alignment.recipe.model_spec import RowChatSpec
from alignment.recipe.schema import Recipe

logger = logging.getLogger(__name__)
# Raised by hand whenever the same files and recipe would give other rows.
DATA_VERSION = 4


@dataclass(frozen=True)
class Prepared:
    """What training and measuring read. `train` and `eval` are memory-mapped; None when the recipe has no such rows."""

    folder: Path
    key: str
    manifest: dict[str, Any]
    train: datasets.Dataset | None
    eval: datasets.Dataset | None


def prepare(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None, *, recipe_dir: Path, cache_dir: Path
) -> Prepared:
    """The prepared rows of a recipe, computed or, when nothing has changed, as they were.

    Args:
        tokenizer: of the model; it is not changed. None for the tokenizer stage.
        cache_dir: prepared folders and their locks; made when absent.

    Raises:
        RecipeError, DataError: as the sources, the mixer, the chat and the encoder raise them.
    """
    found = _find_sources(recipe, recipe_dir)
    chat = None if tokenizer is None else _load_chat(recipe, tokenizer, recipe_dir)
    key = _make_key(recipe, found, chat)
    folder = Path(cache_dir) / f"{recipe.stage}-{key[:16]}"
    if not (folder / "manifest.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f"{folder.name}.lock"):
            if not (folder / "manifest.json").is_file():
                _build(folder, recipe, key, found, chat)
    return load_prepared(folder)


def load_prepared(folder: Path) -> Prepared:
    """What `prepare` left in `folder`. Raises DataError when that is not whole."""
    folder = Path(folder)
    if not (folder / "manifest.json").is_file():
        raise DataError(f"{folder}: no manifest.json; prepared rows were expected. Run `alignment prepare RECIPE`.")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows = {}
    for split in ("train", "eval"):
        expected, path = manifest["num_rows"][split], folder / f"{split}.arrow"
        _check_size(path, manifest.get("bytes", {}).get(path.name))
        rows[split] = None if expected is None else datasets.Dataset.from_file(str(path))
        if expected is not None and len(rows[split]) != expected:
            raise DataError(
                f"{path}: found {len(rows[split])} rows; {expected} were expected. Delete {folder} and prepare again."
            )
    return Prepared(folder, manifest["key"], manifest, rows["train"], rows["eval"])


def _check_size(path: Path, written: int | None) -> None:
    """Rows are memory-mapped: of a file that was cut, the missing end would show in the middle of a training, deep in a library."""
    found = path.stat().st_size if path.is_file() else 0
    if written is not None and found != written:
        raise DataError(
            f"{path}: found {found} bytes; {written} were written. Delete {path.parent}, and the same command prepares the rows again."
        )


# ------------------------------------------------------------------------------------------------ inputs


def _find_sources(recipe: Recipe, recipe_dir: Path) -> dict[str, list[FoundSource]]:
    found: dict[str, list[FoundSource]] = {}
    for split, default in (("train", "train"), ("eval", None)):
        # A stage has the splits that its data section has.
        specs: Sequence[SourceSpec] = getattr(recipe.data, split) if split in type(recipe.data).model_fields else ()
        for spec in specs:
            if spec.format not in STAGE_FORMATS[recipe.stage]:
                raise RecipeError(
                    f"{spec.path}: format {spec.format} in stage {recipe.stage}; one of {', '.join(STAGE_FORMATS[recipe.stage])}"
                    " was expected. Correct 'format' or 'stage'."
                )
            check_columns(spec)
        found[split] = [find_source(spec, recipe_dir, default) for spec in specs]
    return found


def _load_chat(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, recipe_dir: Path) -> Chat:
    """The chat of the recipe on a copy of the tokenizer."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if _is_plain(recipe, tokenizer):
        return load_plain_chat(tokenizer)
    return load_chat(tokenizer, recipe.chat, recipe_dir)


def _is_plain(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether rows are running text: in pretraining; in an evaluation of texts, or of prompts without any chat template."""
    if recipe.stage == "pretrain":
        return True
    if recipe.stage != "evaluate":
        return False
    formats = {spec.format for spec in recipe.data.eval}
    no_template = recipe.chat.template == "from_tokenizer" and not tokenizer.chat_template
    return formats == {"text"} or (no_template and formats <= {"text", "prompt_completion"})


def _make_key(recipe: Recipe, found: dict[str, list[FoundSource]], chat: Chat | None) -> str:
    """sha256 over everything that decides the prepared rows, in hexadecimal."""
    inputs = {
        "data_version": DATA_VERSION,
        "libraries": {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__},
        "stage": recipe.stage,
        "seed": recipe.seed,
        "data": recipe.data.model_dump(mode="json"),
        "chat": recipe.model_dump(mode="json").get("chat"),
        "sources": {split: [source.content_hash for source in sources] for split, sources in found.items()},
        "tokenizer": chat and hash_tokenizer(chat.tokenizer),
        "template": chat and chat.template,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 over what decides a tokenizer's ids: its tokenizer.json, special tokens and chat template. 16 hex digits."""
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    parts = [tokenizer.backend_tokenizer.to_str(), json.dumps(special, sort_keys=True), str(tokenizer.chat_template)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------ the folder


def _build(folder: Path, recipe: Recipe, key: str, found: dict[str, list[FoundSource]], chat: Chat | None) -> None:
    """Fills a folder beside `folder` and renames it. The caller holds the lock, so what lies there is of a killed process."""
    begun = time.perf_counter()
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(left)
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    temporary.mkdir()
    try:
        splits = _make_splits(recipe, found, chat, folder.parent)
        for name, split in splits.items():
            _write_table(temporary / f"{name}.arrow", split.table)
        if chat is not None:
            chat.tokenizer.save_pretrained(temporary / "tokenizer")
        manifest = _make_manifest(recipe, key, found, chat, splits)
        manifest["bytes"] = {path.name: path.stat().st_size for path in sorted(temporary.glob("*.arrow"))}
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    rows = {name: split.table.num_rows for name, split in splits.items()}
    logger.info("prepared %s in %.1f s: %s", rows, time.perf_counter() - begun, folder)


def _make_splits(
    recipe: Recipe, found: dict[str, list[FoundSource]], chat: Chat | None, cache_dir: Path
) -> dict[str, Split]:
    sources = {split: read_sources(entries, recipe.seed, cache_dir) for split, entries in found.items() if entries}
    if chat is None:
        return {"train": prepare_texts(sources["train"], recipe.seed)}
    spec = _encode_spec(recipe, chat)
    return {split: prepare_split(chat, entries, recipe, spec, split) for split, entries in sources.items()}


def _encode_spec(recipe: Recipe, chat: Chat) -> EncodeSpec:
    return EncodeSpec(
        max_length=recipe.data.max_length,
        on_too_long=recipe.data.on_too_long,
        on_bad_row=recipe.data.on_bad_row,
        train_on=recipe.chat.train_on if recipe.stage == "sft" else "assistant",
        control_tokens=_control_tokens(recipe, chat),
        plain=not chat.template,
        prompts_only=recipe.stage == "ppo",
    )


def _control_tokens(recipe: Recipe, chat: Chat) -> Literal["refuse", "escape"]:
    """Running text may spell what it likes; of messages the recipe says it."""
    has_key = "chat" in type(recipe).model_fields and isinstance(recipe.chat, RowChatSpec)
    return recipe.chat.control_tokens if chat.template and has_key else "escape"


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def _make_manifest(
    recipe: Recipe, key: str, found: dict[str, list[FoundSource]], chat: Chat | None, splits: dict[str, Split]
) -> dict[str, Any]:
    overlap = None
    if len(splits) == 2:
        train, held_out = splits["train"], splits["eval"]
        overlap = asdict(check_overlap((train.mixture, train.examples), (held_out.mixture, held_out.examples)))
    sources = [
        {"split": split, "path": source.spec.path, "revision": source.revision, "content_hash": source.content_hash}
        for split, entries in found.items()
        for source in entries
    ]
    manifest = {
        "key": key,
        "data_version": DATA_VERSION,
        "stage": recipe.stage,
        "seed": recipe.seed,
        "num_rows": {name: splits[name].table.num_rows if name in splits else None for name in ("train", "eval")},
        "sources": sources,
        "mix": [row for split in splits.values() for row in split.mix_report],
        "encode": {name: split.encode_report for name, split in splits.items()},
        "overlap": overlap,
        "doctor": examine(splits["train"].mixture.sources, splits["train"].examples) if "train" in splits else [],
    }
    return manifest if chat is None else manifest | _describe_chat(recipe, chat)


def _describe_chat(recipe: Recipe, chat: Chat) -> dict[str, Any]:
    return {
        "max_length": recipe.data.max_length,
        "packing": is_packed(recipe),
        "template_name": chat.template_name,
        "template_hash": chat.template_hash,
        "tokenizer_hash": hash_tokenizer(chat.tokenizer),
        "vocab_size": len(chat.tokenizer),
        "added_tokens": list(chat.added_tokens),
        "pad_id": chat.pad_id,
        "stop_ids": list(chat.stop_ids),
        "bos_id": chat.bos_id,
    }
