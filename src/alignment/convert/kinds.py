"""What the values must be that a conversion computes with, whichever project's. What is only carried over, `alignment check` judges."""

from collections.abc import Callable, Iterator
from pathlib import Path

from alignment.errors import RecipeError
from alignment.recipe.loader import report
from alignment.recipe.locate import Node, node_at
from alignment.recipe.mistakes import Mistake


def check_kinds(root: Node) -> None:
    """Raises RecipeError with all values that are of another kind; a key without a value counts as not given."""
    mistakes = [*_wrong(root, KINDS)]
    for path in LISTS_OF_SOURCES:
        found = node_at(root, path)
        sources = found.items if found is not None and found.is_list else ()
        mistakes += [mistake for source in sources if source.is_mapping for mistake in _wrong(source, SOURCE_KINDS)]
    if mistakes:
        raise RecipeError(report(Path(root.place.origin.name), mistakes))


def _wrong(mapping: Node, kinds: "dict[tuple[str, ...], Kind]") -> Iterator[Mistake]:
    for names, (is_kind, expected) in kinds.items():
        for name in names:
            node = mapping.children.get(name)
            if node is not None and node.plain() is not None and not is_kind(node):
                yield Mistake(node.place, f"{name}: found {node.kind()}; {expected} was expected", "write one there")


def _is_number(node: Node) -> bool:
    return isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _is_count(node: Node) -> bool:
    return _is_number(node) and isinstance(node.value, int) and node.value > 0


def _is_text(node: Node) -> bool:
    return isinstance(node.value, str)


def _is_mapping(node: Node) -> bool:
    return node.is_mapping


def _is_list(node: Node) -> bool:
    return node.is_list


def _is_list_of_text(node: Node) -> bool:
    return node.is_list and all(map(_is_text, node.items))


def _is_text_or_list(node: Node) -> bool:
    return _is_text(node) or _is_list_of_text(node)


def _is_scalar(node: Node) -> bool:
    return not node.is_list and not node.is_mapping


def _is_adapter(node: Node) -> bool:
    return node.is_mapping and ("r" not in node.children or _is_count(node.children["r"]))


def _are_sources(node: Node) -> bool:
    return node.is_list and all(map(_is_source, node.items))


def _is_source(node: Node) -> bool:
    return node.is_mapping and any(_is_text(node.children[key]) for key in ("path", "id") if key in node.children)


def _are_sources_or_text(node: Node) -> bool:
    return _is_text(node) or _are_sources(node)


def _is_mixture(node: Node) -> bool:
    return node.is_mapping and "datasets" in node.children and _are_sources(node.children["datasets"])


def _is_mixer(node: Node) -> bool:
    return node.is_mapping and all(map(_is_number, node.children.values()))


Kind = tuple[Callable[[Node], bool], str]
COUNT = (_is_count, "a whole number of 1 or more")
NUMBER = (_is_number, "a number")
TEXT = (_is_text, "text")
WORD = (_is_scalar, "a word")
NAMES = (_is_list_of_text, "a list of names")
TEXT_OR_LIST = (_is_text_or_list, "text or a list of text")
MAPPING = (_is_mapping, "a mapping")
SOURCES = (_are_sources, "a list of data sets, each with its path (TRL's: id),")
KINDS: dict[tuple[str, ...], Kind] = {
    ("per_device_train_batch_size", "micro_batch_size", "gradient_accumulation_steps", "ray_num_workers", "lora_rank"): COUNT,
    ("num_train_epochs", "num_epochs", "warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2"): NUMBER,
    ("lora_dropout", "val_size", "val_set_size"): NUMBER,
    ("base_model", "model_name_or_path", "chat_template", "template", "optim", "optimizer", "eos_token"): TEXT,
    ("additional_target",): TEXT,
    ("stage", "rl", "flash_attn"): WORD,
    ("lora_target", "lora_target_modules"): TEXT_OR_LIST,
    ("special_tokens", "lr_scheduler_kwargs", "quant_config"): MAPPING,
    ("peft_config",): (_is_adapter, "a mapping whose 'r' is a whole number"),
    ("dataset_splits",): NAMES,
    ("dataset_configs",): (_is_list, "a list of names"),
    ("datasets", "test_datasets"): SOURCES,
    ("pretraining_dataset",): (_are_sources_or_text, "a name, or a list of data sets, each with its path,"),
    ("dataset_mixture",): (_is_mixture, "a mapping whose 'datasets' is a list of data sets, each with its id,"),
    ("dataset_mixer",): (_is_mixer, "a mapping from data sets to numbers"),
}  # fmt: skip
LISTS_OF_SOURCES = (("datasets",), ("test_datasets",), ("pretraining_dataset",), ("dataset_mixture", "datasets"))
SOURCE_KINDS: dict[tuple[str, ...], Kind] = {
    ("path", "id", "split", "field_messages"): TEXT,
    ("weight",): NUMBER,
    ("columns",): NAMES,
    ("data_files",): TEXT_OR_LIST,
    ("message_property_mappings", "roles"): MAPPING,
}
