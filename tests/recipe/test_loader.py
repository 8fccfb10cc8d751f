"""A recipe with mistakes is refused with all of them, each at its place with what to do."""

from pathlib import Path

import pytest
from recipe_files import FULL, ROOT, repository_recipes

from alignment.errors import RecipeError
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.loader import load_recipe, read_recipe
from alignment.recipe.metric_spec import NEEDS
from alignment.recipe.renamed import RENAMED, RENAMED_IN_SOURCES
from alignment.recipe.schema import RECIPES
from alignment.recipe.shape import all_keys, walk_fields

HEAD = "stage: sft\nmodel:\n  path: a/b\n"
DATA = "data:\n  train:\n    - path: a.jsonl\n      format: messages\n"
HELD_OUT = "  eval:\n    - path: b.jsonl\n      format: messages\n"
TRAIN = "train:\n  max_steps: 5\n  learning_rate: 1e-4\n"


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value).replace(str(path), "r.yaml")


def lines_said(tmp_path: Path, text: str) -> list[str]:
    """`line:column message` of each mistake."""
    said = [line for line in refusal(tmp_path, text).splitlines() if line.startswith("r.yaml:")]
    return [line.removeprefix("r.yaml:").replace(": error:", "", 1) for line in said]


@pytest.mark.parametrize("path", repository_recipes(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    assert load_recipe(path).stage in RECIPES


def test_the_full_recipes_use_every_key_of_every_stage() -> None:
    """Without this, the mutation tests would pass over keys that no recipe uses."""
    given = {stage: set() for stage in RECIPES}
    for path in FULL.glob("*.yaml"):
        recipe = load_recipe(path)
        given[recipe.stage] |= _keys_given(recipe)
    for stage, recipe_class in RECIPES.items():
        known = {(*path, name) for path, name, _ in walk_fields(recipe_class) if path[:2] != ("model", "config")}
        known |= {("model", "config", name) for name in ("model_type", "rope_theta") if stage == "pretrain"}
        # A stage's recipe has one of the two, and in two sources and lists every key is written once.
        optional = {("train", "max_steps"), ("train", "num_train_epochs"), ("data", "mixture")}
        if stage == "curate":  # a balance has targets or a temperature
            optional |= {("curate", "steps", "[]", "balance", "temperature")}
        if stage != "sft":  # whose full recipes have these, alike in every stage
            optional |= {("data", name) for name in ("share_of", "temperature", "total", "max_repeat")}
            optional |= {("data", "train", "[]", "share")}
        missing = {key for key in known - optional if not _has(given[stage], key)}
        assert missing == set(), stage


def _keys_given(section, path: tuple = ()) -> set[tuple]:
    found = set()
    for name in section.model_fields_set:
        found.add((*path, name))
        inner = getattr(section, name)
        for item, where in [(inner, (*path, name))] + [
            (item, (*path, name, "[]")) for item in (inner if isinstance(inner, tuple) else ())
        ]:
            if hasattr(item, "model_fields_set"):
                found |= _keys_given(item, where)
    return found


def _has(given: set[tuple], key: tuple) -> bool:
    """A source's key is there when one of the two lists has it."""
    if key[:1] == ("data",) and "[]" in key:
        return any(("data", split, *key[2:]) in given for split in ("train", "eval"))
    return key in given


def test_a_mistake_is_shown_with_line_caret_and_advice(tmp_path: Path) -> None:
    assert refusal(tmp_path, HEAD + DATA + "train:\n  max_steps: 5\n  learning_rte: 1e-4\n") == (
        "r.yaml:10:3: error: unknown key 'train.learning_rte'\n"
        "    10 |   learning_rte: 1e-4\n"
        "           ^\n"
        "         = did you mean 'learning_rate'?\n"
        "1 error in r.yaml; nothing was started."
    )


def test_all_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """stag: sft
seed: 1.0
model:
  path: 5
  dtype: bfloat15
lora: {r: 0, targett_modules: [1, a]}
trian:
  num_train_epochs: 1_0
  max_steps: 10
  learning_rat: '1e-4'
  per_device_train_batch_size: 1e1
  lr_scheduler_type: cosine_with_min_lr
  lr_scheduler_kwargs:
    min_lr_rat: 0.1
data:
  train:
    - path: x
      formatt: text
      rows: 3
      repeat: 2
    - {path: a, format: txt}
  train: []
  packing:
eval:
  metrics:
    - metrik: stops
    - 5
"""
    assert lines_said(tmp_path, text) == [
        "1:1 unknown key 'stag'",
        "2:7 seed: found 1.0 (a number); a whole number of at least 0 and below 4294967296 was expected",
        "4:9 model.path: found 5 (a whole number); text was expected",
        "5:10 model.dtype: found 'bfloat15' (text); one of auto, float32, bfloat16, float16 was expected",
        "6:11 lora.r: found 0 (a whole number); a whole number above 0 was expected",
        "6:14 unknown key 'lora.targett_modules'",
        "6:32 lora.target_modules.0: found 1 (a whole number); text was expected",
        "7:1 unknown key 'trian'",
        "8:21 found 1_0; a number without underscores was expected",
        "10:3 unknown key 'train.learning_rat'",
        "10:17 train.learning_rate: found '1e-4' (text); a number above 0 was expected",
        "11:32 train.per_device_train_batch_size: found 1e1 (a number); a whole number above 0 was expected",
        "14:5 train: lr_scheduler_kwargs: 'min_lr_rat' is not read by lr_scheduler_type cosine_with_min_lr; "
        "did you mean 'min_lr_rate'?",
        "18:7 unknown key 'data.train.0.formatt'",
        "20:7 data.train.0: give at most one of 'rows' and 'repeat'; without either the whole split is used once",
        "21:7 data.train.1: found {...}; a source in block style was expected",
        "21:25 data.train.1.format: found 'txt' (text); one of messages, prompt_completion, alpaca, sharegpt, preference, "
        "prompt, text was expected",
        "22:3 key 'train' is given twice; first on line 16",
        "23:3 found nothing; a value was expected",
        "26:7 unknown key 'eval.metrics.0.metrik'",
        f"27:7 eval.metrics.1: found 5 (a whole number); one of {', '.join(NEEDS)} or a mapping was expected",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # a typo is one mistake, not also a missing key
        (HEAD + DATA + "trian:\n  max_steps: 5\n  learning_rate: 1e-4\n", ["8:1 unknown key 'trian'"]),
        (HEAD + DATA + "learning_rate: 1e-4\ntrain:\n  max_steps: 5\n", ["8:1 unknown key 'learning_rate'"]),
        ("stage: sft\nmodel_name_or_path: a/b\nmodel: {}\n" + DATA + TRAIN, ["2:1 unknown key 'model_name_or_path'"]),
        # what is missing is named with the place of its section
        (HEAD + TRAIN, ["1:1 missing key 'data'"]),
        (HEAD + DATA + "train:\n  max_steps: 5\n", ["8:1 missing key 'train.learning_rate'"]),
        (HEAD + "data:\n  train:\n    - path: a\n" + TRAIN, ["6:7 missing key 'data.train.0.format'"]),
        (HEAD + "data:\n  train: []\n" + TRAIN, ["5:10 data.train: found an empty list; a list of at least one item was expected"]),
        (HEAD + "data:\n  train:\n    path: a\n    format: text\n" + TRAIN,
         ["6:5 data.train: found a mapping; a list of at least one item was expected"]),
        # rules between keys hold also where another key is wrong
        (HEAD + DATA + "train:\n  num_train_epochs: 1\n  max_steps: 5\n",
         ["8:1 missing key 'train.learning_rate'",
          "10:3 train: give exactly one of 'num_train_epochs' and 'max_steps'"]),
        (HEAD + DATA + "train:\n  learning_rate: 1\n", ["8:1 train: give exactly one of 'num_train_epochs' and 'max_steps'"]),
        (HEAD + DATA + TRAIN + "  keep: best\n",
         ["11:3 train: keep: best needs eval_steps"]),
        (HEAD + DATA + HELD_OUT + TRAIN + "  keep: best\n  eval_steps: 2\n  save_steps: 4\n",
         ["14:3 train: keep: best needs save_steps equal to eval_steps, so that the best weights are on disk"]),
        (HEAD + DATA + TRAIN + "  lr_scheduler_type: constant\n  warmup_steps: 3\n",
         ["11:3 train: lr_scheduler_type constant ignores warmup_steps; use constant_with_warmup"]),
        (HEAD + DATA + TRAIN + "  lr_scheduler_kwargs: {power: 2}\n",
         ["11:25 train: lr_scheduler_kwargs: 'power' is not read by lr_scheduler_type cosine; it reads: num_cycles"]),
        # no stage, no further guessing
        ("model:\n  path: a\n", ["1:1 missing key 'stage'"]),
        ("stage: rlhf\nmodle: 1\n", ["1:8 stage: found 'rlhf' (text); a stage was expected"]),
        ("stage: 5\n", ["1:8 stage: found 5 (a whole number); a stage was expected"]),
        ("- stage: sft\n", ["1:1 found a list of 1; a mapping was expected"]),
        ("sft\n", ["1:1 found 'sft' (text); a mapping was expected"]),
        # a section that is none
        (HEAD + DATA + TRAIN + "lora: true\n", ["11:7 lora: found true (true or false); a mapping was expected"]),
        (HEAD + DATA + TRAIN + "lora: [r: 8]\n", ["11:7 lora: found a list of 1; a mapping was expected"]),
        (HEAD + DATA + "train: null\n", ["8:8 train: found null; a mapping was expected"]),
        # free mappings
        (HEAD + DATA + "      columns: {messages: 5}\n" + TRAIN,
         ["8:27 data.train.0.columns.messages: found 5 (a whole number); text was expected"]),
        (HEAD + DATA + "      columns: messages\n" + TRAIN,
         ["8:16 data.train.0.columns: found 'messages' (text); a mapping from names to texts was expected"]),
    ],
)  # fmt: skip
def test_exactly_these_mistakes_are_found(tmp_path: Path, text: str, said: list[str]) -> None:
    assert lines_said(tmp_path, text) == said


CONFIG = "stage: pretrain\nmodel:\n  config:\n{}tokenizer: {{path: t}}\n" + DATA + TRAIN
LLAMA = "    hidden_size: 8\n    intermediate_size: 8\n    num_hidden_layers: 1\n    num_attention_heads: 1\n"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("    model_type: lama\n" + LLAMA + "    hiden_act: silu\n", "4:17 model.config.model_type: found 'lama' (text); one of llama,"),
        ("    model_type: lama\n" + LLAMA + "    hiden_act: silu\n", "9:5 unknown key 'model.config.hiden_act'"),
        ("    model_type: bert\n", "4:17 model.config.model_type: found 'bert' (text); one of llama, qwen3, mistral"),
        (LLAMA, "3:3 missing key 'model.config.model_type'"),
        ("    model_type: llama\n    n_embd: 5\n" + LLAMA, "5:5 unknown key 'model.config.n_embd'"),
        ("    model_type: llama\n", "3:3 missing key 'model.config.hidden_size'"),
        ("    model_type: gpt2\n    n_embd: 5.5\n    n_layer: 1\n    n_head: 1\n    n_positions: 8\n",
         "5:13 model.config.n_embd: found 5.5 (a number); a whole number above 0 was expected"),
    ],
)  # fmt: skip
def test_mistakes_in_a_model_configuration_are_those_of_its_type(tmp_path: Path, config: str, said: str) -> None:
    found = lines_said(tmp_path, CONFIG.format(config))
    assert any(line.startswith(said) for line in found), found


def test_a_key_of_another_architecture_names_that_one(tmp_path: Path) -> None:
    text = CONFIG.format("    model_type: llama\n    n_embd: 5\n" + LLAMA)
    assert "= model_type llama has no such key, only gpt2" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("  global_batch_size: '4'", "remove the quotes: global_batch_size: 4"),
        ("  global_batch_size: 1,024", "write 1024"),
        ("  global_batch_size: 1e3", "write 1000"),
        ("  gradient_checkpointing: yes", "write true"),
        ("  gradient_checkpointing: Off", "write false"),
        ("  gradient_checkpointing: 'true'", "write true"),
        ("  optim: adamw", "did you mean 'adamw_torch'?"),
        ("  warmup_ratio: 0.1", "write train.warmup_steps, a number of optimizer steps"),
        ("  max_seq_length: 5", "here it is called 'data.max_length'"),
        ("  gradient_accumulation_steps: 5", "it is derived: state train.global_batch_size"),
        ("  beta: 0.1", "stage sft does not read it; in stage dpo it is 'dpo.beta'"),
        ("  rpo_alpha: 0.1", "here it is called 'dpo.sft_weight', which stage sft does not read"),
        ("  adam_beta3: 0.1", "did you mean 'adam_beta2' or 'adam_beta1'?"),
        ("  lora: {}", "it belongs in no section: write it at the top"),
        ("  rows: 5", "it belongs in an item of 'data.train' or an item of 'data.eval'"),
        ("  qqq: 5", "keys of train: num_train_epochs, max_steps, global_batch_size,"),
    ],
)
def test_advice_says_what_to_write(tmp_path: Path, line: str, advice: str) -> None:
    assert f"= {advice}" in refusal(tmp_path, HEAD + DATA + TRAIN + line + "\n")


@pytest.mark.parametrize(
    ("section", "advice"),
    [
        ("eval:\n  metrics: [stops]\n", "stage evaluate calls it 'evaluate'"),
        ("eval:\n  - path: a.jsonl\n", "it belongs in section 'data'"),
    ],
)
def test_evaluation_settings_of_other_stages_have_another_name_in_stage_evaluate(
    tmp_path: Path, section: str, advice: str
) -> None:
    text = "stage: evaluate\nmodel:\n  path: a/b\n" + DATA.replace("train", "eval") + section
    assert f"= {advice}\n" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("weight: 0.5", RENAMED_IN_SOURCES["weight"]),
        ("config: en", RENAMED_IN_SOURCES["config"]),
        ("type: alpaca", RENAMED_IN_SOURCES["type"]),
        ("revision: 123456", "put quotes around text: revision: '123456'"),
        ("data_files: a.jsonl", "write a list: [a.jsonl]"),
    ],
)
def test_advice_in_a_source_speaks_of_sources(tmp_path: Path, line: str, advice: str) -> None:
    assert f"= {advice}" in refusal(tmp_path, HEAD + DATA + f"      {line}\n" + TRAIN)


def test_renamed_keys_lead_to_keys_that_exist() -> None:
    known = {".".join((*path, name)) for recipe in RECIPES.values() for path, name, _ in walk_fields(recipe)}
    lost = {old: new for old, new in RENAMED.items() if " " not in new and new not in known}
    assert lost == {}
    assert set(RENAMED_IN_SOURCES) & set(SourceSpec.model_fields) == set()


def test_every_renamed_key_is_answered(tmp_path: Path) -> None:
    for old, new in RENAMED.items():
        said = refusal(tmp_path, HEAD + DATA + TRAIN + f"{old}: x\n")
        leaf = new.rsplit(".", 1)[-1] if " " not in new else new
        assert leaf in said or any(old in all_keys(recipe) for recipe in RECIPES.values()), (old, said)


def test_a_recipe_is_frozen_all_the_way_down() -> None:
    recipe = load_recipe(FULL / "sft.yaml")
    for change in (
        lambda: setattr(recipe.train, "learning_rate", 1.0),
        lambda: recipe.data.train.append(1),
        lambda: recipe.data.train[0].columns.update(a="b"),
        lambda: recipe.data.train[0].columns.__setitem__("a", "b"),
    ):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            change()
    assert recipe == load_recipe(FULL / "sft.yaml")


def test_a_recipe_with_mistakes_is_no_recipe() -> None:
    read = read_recipe(FULL / "sft.yaml", ["seed=-1"])
    assert read.recipe is None
    assert len(read.mistakes) == 1
