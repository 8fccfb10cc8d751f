"""What a rehearsal is made of: names to architectures, inputs to their origin, sources to rows, recipes to small ones."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from alignment.commands import rehearse as commands
from alignment.data.formats import FORMATS, make_example
from alignment.data.sources import find_source
from alignment.data.templates import template_text
from alignment.errors import DataError, RecipeError
from alignment.gallery import find_studies, hash_recipe_files, read_evidence, read_study
from alignment.launch.rehearse import heads, rows
from alignment.launch.rehearse.build import build, read_built
from alignment.launch.rehearse.families import FAMILIES, find_family, shrink_config
from alignment.launch.rehearse.gallery import find_recipes, find_strategy
from alignment.launch.rehearse.inputs import find_origin, named_inputs
from alignment.launch.rehearse.shrink import build_recipe, plan_steps, shrink
from alignment.launch.rehearse.stage import compare_steps
from alignment.models.tokenizer import load_tokenizer, train_tokenizer
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_spec import NewTokenizerSpec
from alignment.recipe.resolved import recipe_fields

GALLERY = Path(__file__).parents[2] / "recipes"
IDS = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


# ------------------------------------------------------------------------------------------------ architectures


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was run in this checkout must not be found."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.1-8B", "llama"),
        ("HuggingFaceTB/SmolLM2-135M", "llama"),
        ("HuggingFaceTB/SmolLM3-3B-Base", "smollm3"),
        ("Qwen/Qwen3-0.6B-Base", "qwen3"),
        ("Qwen/Qwen3-30B-A3B", "qwen3_moe"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2"),
        ("mistralai/Mistral-7B-v0.1", "mistral"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral"),
        ("openai-community/gpt2", "gpt2"),
        ("EleutherAI/pythia-160m", "gpt_neox"),
        ("somebody/a-model-of-ours", None),
    ],
)
def test_a_name_means_the_architecture_that_was_published_under_it(name: str, family: str | None) -> None:
    assert find_family(name) == family


@pytest.mark.parametrize("family", sorted(set(FAMILIES.values())))
def test_every_known_architecture_can_be_made_small_and_stays_itself(family: str) -> None:
    full = AutoConfig.for_model(family).to_dict()
    small = shrink_config(full, 256)
    small.pop("model_type")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small, **IDS))
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000
    assert model.config.model_type == family
    for switch in ("tie_word_embeddings", "attention_bias", "hidden_act", "mlp_bias"):
        if switch in full:
            assert getattr(model.config, switch) == full[switch]


def test_heads_that_share_keys_still_share_them() -> None:
    assert shrink_config({"num_attention_heads": 32, "num_key_value_heads": 8}, 8)["num_key_value_heads"] == 2
    assert shrink_config({"num_attention_heads": 32, "num_key_value_heads": 32}, 8)["num_key_value_heads"] == 4
    assert shrink_config({"num_attention_heads": 32, "num_key_value_heads": 1}, 8)["num_key_value_heads"] == 1


def test_both_kinds_of_layers_are_kept() -> None:
    layers = ["sliding_attention"] * 5 + ["full_attention"]
    small = shrink_config({"num_hidden_layers": 6, "layer_types": layers}, 8)
    assert small["layer_types"] == ["sliding_attention", "full_attention"]


# ------------------------------------------------------------------------------------------------ inputs


def test_a_run_is_followed_through_its_recipes_to_the_base_model() -> None:
    path = GALLERY / "smollm3-style/dpo.yaml"
    origin = find_origin("runs/smollm3-style/sft/final", path)
    assert origin.config == {"model_type": "smollm3"}
    assert origin.is_assumed
    assert "SmolLM3-3B-Base" in origin.known_from


def test_a_reward_run_of_a_new_model_has_its_config_and_a_score_head() -> None:
    origin = find_origin("runs/quickstart/reward/final", GALLERY / "quickstart/ppo.yaml")
    assert (origin.kind, origin.config["model_type"], origin.config["hidden_size"]) == ("reward", "llama", 192)
    assert origin.template == "chatml"
    assert not origin.is_assumed


def test_a_folder_is_read_and_not_guessed(tmp_path: Path) -> None:
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    origin = find_origin(str(tmp_path), tmp_path / "sft.yaml")
    assert (origin.config["model_type"], origin.is_assumed, origin.tokenizer) == ("qwen3", False, None)


@pytest.mark.parametrize("path", ["somebody/a-model-of-ours", "runs/nowhere/sft/final", "./not/there"])
def test_an_input_that_nobody_knows_is_refused_with_what_to_do(path: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"Fetch it first|Train it first|Correct the path"):
        find_origin(path, tmp_path / "sft.yaml")


def test_every_input_of_ppo_is_named() -> None:
    recipe = load_recipe(GALLERY / "quickstart/ppo.yaml")
    assert [place for place, _ in named_inputs(recipe)] == [("model", "path"), ("ppo", "reward_model")]


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("format_", FORMATS)
def test_generated_rows_are_rows_of_their_format_under_the_sources_own_names(format_: str) -> None:
    column = {"text": "text", "messages": "messages", "sharegpt": "conversations", "alpaca": "output"}.get(
        format_, "prompt"
    )
    spec = SourceSpec(path="x/y", format=format_, columns={column: "theirs"}, where={"good": True})
    made = list(rows.generate_rows(spec, 6, "a", [{"kind": 1}, {"kind": 2}]))
    examples = [make_example(row, spec) for row in made]
    assert len({str(example) for example in examples}) == 6
    assert all("theirs" in row and row["good"] is True for row in made)
    assert {row["kind"] for row in made} == {1, 2}


def test_two_splits_of_one_dataset_do_not_get_the_same_generated_rows() -> None:
    spec = SourceSpec(path="x/y", format="text")
    one, other = ({row["text"] for row in rows.generate_rows(spec, 50, name)} for name in ("train 0", "eval 1"))
    assert not one & other


PRETRAIN = """stage: pretrain
model:
  path: openai-community/gpt2
data:
  train:
    - path: gone.jsonl
      format: text
  eval:
    - path: gone_text.jsonl
      format: text
    - path: gone_recall.jsonl
      format: prompt_completion
train:
  max_steps: 10
  learning_rate: 1.0e-4
eval:
  metrics:
    - metric: bits_per_byte
      where:
        part: documents
    - metric: recall
      where:
        part: recall
"""


def test_generated_text_is_not_marked_for_metrics_that_need_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "pretrain.yaml").write_text(PRETRAIN)
    drawn = rows.draw_rows(load_recipe(tmp_path / "pretrain.yaml"), tmp_path, tmp_path / "scratch")
    parts = {one.spec.path: {row.get("part") for row in one.rows} for one in drawn}
    assert parts["gone_text.jsonl"] == {"documents"}
    assert parts["gone_recall.jsonl"] == {"documents", "recall"}


SFT = """stage: sft
model:
  path: openai-community/gpt2
chat:
  template: chatml
data:
  train:
    - path: {path}
      format: prompt_completion
train:
  max_steps: 1000
  global_batch_size: 64
  learning_rate: 1.0e-4
  warmup_steps: 100
"""


def test_rows_on_this_disk_are_the_sources_own_and_the_shortest(tmp_path: Path) -> None:
    lines = [{"prompt": "p" * n, "completion": "c"} for n in range(1, 101)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "sft.yaml").write_text(SFT.format(path="rows.jsonl"))
    (drawn,) = rows.draw_rows(load_recipe(tmp_path / "sft.yaml"), tmp_path, tmp_path / "scratch")
    assert drawn.missing is None
    assert [row["prompt"] for row in drawn.rows] == ["p" * n for n in range(1, rows.NUM_ROWS["train"] + 1)]


@pytest.mark.parametrize("path", ["gone.jsonl", "${NOT_SET_ANYWHERE}/rows.jsonl"])
def test_rows_that_cannot_be_reached_are_generated_and_said(path: str, tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(SFT.format(path=path))
    (drawn,) = rows.draw_rows(load_recipe(tmp_path / "sft.yaml"), tmp_path, tmp_path / "scratch")
    assert drawn.missing
    assert len(drawn.rows) == rows.NUM_ROWS["train"]


def test_a_source_that_is_there_and_broken_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("not json\n")
    (tmp_path / "sft.yaml").write_text(SFT.format(path="rows.jsonl"))
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        rows.draw_rows(load_recipe(tmp_path / "sft.yaml"), tmp_path, tmp_path / "scratch")


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(10_000)))
    spec = SourceSpec(path="rows.jsonl", format="text", split="train[-10:]")
    cut = heads.cut_heads(find_source(spec, tmp_path, None), tmp_path / "heads")
    assert cut.files[0].stat().st_size < path.stat().st_size / 2
    assert cut.split == "train"
    assert json.loads(cut.files[0].read_text().splitlines()[0]) == {"text": "row 0"}


# ------------------------------------------------------------------------------------------------ the small recipe


def shrunken(path: Path, **further):
    recipe = load_recipe(path)
    sources = {
        split: [(f"data/{split}-{n}.jsonl", 8) for n, _ in enumerate(getattr(recipe.data, split, ()))]
        for split in ("train", "eval")
        if split in type(recipe.data).model_fields
    }
    arguments = {"inputs": {}, "max_length": 64, "accumulates": True} | further
    if recipe.stage == "tokenizer":
        arguments["max_length"] = None
    fields, remarks = shrink(recipe, sources=sources, **arguments)
    return recipe, build_recipe(fields), {remark.what for remark in remarks}


@pytest.mark.parametrize("path", find_recipes(GALLERY), ids=lambda path: str(path.relative_to(GALLERY)))
def test_what_decides_a_run_stays_as_it_is(path: Path) -> None:
    original, small, _ = shrunken(path)
    there, here = recipe_fields(original), recipe_fields(small)
    for section in ("stage", "seed", "chat", "dpo", "reward"):
        if section == "chat" and there.get("chat", {}).get("template", "").endswith(".jinja"):
            continue
        assert here.get(section) == there.get(section), section
    if there.get("lora"):
        assert here["lora"] == there["lora"] | {"load_in_4bit": False}
    for key in (
        "lr_scheduler_type",
        "learning_rate",
        "weight_decay",
        "bf16",
        "gradient_checkpointing",
        "max_grad_norm",
    ):
        assert here.get("train", {}).get(key) == there.get("train", {}).get(key), key
    for key in ("packing", "on_bad_row", "on_too_long"):
        assert here["data"].get(key) == there["data"].get(key)


def test_accumulation_stays_accumulation_and_steps_stay_few() -> None:
    _, small, _ = shrunken(GALLERY / "smollm2-135m/sft.yaml")
    train = small.train
    assert (train.global_batch_size, train.per_device_train_batch_size, train.max_steps) == (4, 1, 6)
    _, small, _ = shrunken(GALLERY / "smollm2-135m/sft.yaml", accumulates=False)
    assert small.train.per_device_train_batch_size == 2


def test_ppo_is_killed_between_two_updates() -> None:
    recipe = load_recipe(GALLERY / "quickstart/ppo.yaml")
    assert recipe.ppo.num_ppo_epochs * recipe.ppo.num_mini_batches == 4
    plan = plan_steps(recipe)
    assert (plan.checkpoint, plan.killed, plan.last) == (4, 8, 12)


def test_what_a_cpu_cannot_do_is_said() -> None:
    _, small, said = shrunken(GALLERY / "zephyr-7b/sft-qlora.yaml")
    assert not small.lora.load_in_4bit
    assert "base weights in 4 bits" in said
    _, small, said = shrunken(GALLERY / "zephyr-7b/dpo-qlora.yaml")
    assert (small.train.optim, "optimizer paged_adamw_32bit" in said) == ("adamw_torch", True)


def test_a_critic_on_the_shared_base_begins_at_the_start_because_the_stand_in_is_no_lora_run(tmp_path: Path) -> None:
    text = (GALLERY / "quickstart/ppo.yaml").read_text()
    path = tmp_path / "ppo.yaml"
    path.write_text(text.replace("\nppo:\n", "\nppo:\n  share_base: true\n  value_model: reward\n"))
    _, small, said = shrunken(path)
    assert (small.ppo.share_base, small.ppo.value_model) == (True, "start")
    assert "share_base with value_model: reward" in said


def test_another_number_after_the_checkpoint_is_seen() -> None:
    before = {4: {"loss": 2.0, "grad_norm": 0.5}, 5: {"loss": 1.9, "grad_norm": 0.4}}
    assert compare_steps(before, {**before, 6: {"loss": 1.0}}) == (0.0, "")
    gap, where = compare_steps(before, {**before, 5: {"loss": 1.9, "grad_norm": 0.41}})
    assert (round(gap, 6), where) == (0.01, "grad_norm of step 5")
    assert compare_steps(before, {**before, 5: {"loss": 1.9}})[0] == float("inf")


# ------------------------------------------------------------------------------------------------ the gallery


def test_the_strategy_is_the_one_that_the_study_names() -> None:
    assert find_strategy(GALLERY / "tulu3-8b/dpo.yaml") == "zero3"
    assert find_strategy(GALLERY / "smollm2-1.7b/sft.yaml") == "zero1"
    assert find_strategy(GALLERY / "qwen3-30b-a3b/sft.yaml") == "fsdp2"
    assert find_strategy(GALLERY / "quickstart/sft.yaml") == "ddp"


def test_a_study_is_rehearsed_while_its_files_are_those_of_the_evidence(tmp_path: Path) -> None:
    study = tmp_path / "mine"
    study.mkdir()
    (study / "sft.yaml").write_text(SFT.format(path="rows.jsonl"))
    (study / "pipeline.yaml").write_text("stages:\n  - sft.yaml\n")
    (study / "README.md").write_text("Status: checked, 2026-01-01.\n")
    facts = {"hash": hash_recipe_files(study / "sft.yaml"), "date": "2026-02-02"}
    (tmp_path / "rehearsed.json").write_text(json.dumps({"mine/sft.yaml": facts}))
    assert (read_study(study).status, read_study(study).date) == ("rehearsed", "2026-02-02")
    (study / "sft.yaml").write_text(SFT.format(path="others.jsonl"))
    assert (read_study(study).status, read_study(study).date) == ("checked", "2026-01-01")


def test_a_mixture_and_a_template_belong_to_the_hash(tmp_path: Path) -> None:
    text = SFT.format(path="rows.jsonl").replace("template: chatml", "template: own.jinja")
    (tmp_path / "sft.yaml").write_text(text)
    (tmp_path / "own.jinja").write_text("one")
    before = hash_recipe_files(tmp_path / "sft.yaml")
    (tmp_path / "own.jinja").write_text("two")
    assert hash_recipe_files(tmp_path / "sft.yaml") != before


def test_the_evidence_names_recipes_that_are_there() -> None:
    assert find_studies(GALLERY)
    assert all((GALLERY / name).is_file() for name in read_evidence(GALLERY))


# ------------------------------------------------------------------------------------------------ on disk


def test_a_model_on_this_disk_is_rehearsed_with_its_own_tokenizer_and_template(tmp_path: Path) -> None:
    texts = [row["text"] for row in rows.generate_rows(SourceSpec(path="x", format="text"), 200, "tokens")]
    tokenizer = train_tokenizer(texts, NewTokenizerSpec(vocab_size=420), "qwen")
    tokenizer.chat_template = template_text("qwen")
    tokenizer.save_pretrained(tmp_path / "model")
    AutoConfig.for_model("qwen3", num_hidden_layers=36, tie_word_embeddings=True).save_pretrained(tmp_path / "model")
    text = SFT.format(path="gone.jsonl").replace("openai-community/gpt2", str(tmp_path / "model"))
    (tmp_path / "sft.yaml").write_text(text.replace("chatml", "from_tokenizer"))
    (tmp_path / "out").mkdir()
    build(load_recipe(tmp_path / "sft.yaml"), tmp_path / "sft.yaml", tmp_path / "out", None)
    said = {remark.what.partition(" ")[0] for remark in read_built(tmp_path / "out").remarks}
    assert said == {"rows", "weights"}
    config = json.loads((tmp_path / "out/inputs/model/config.json").read_text())
    assert (config["model_type"], config["vocab_size"], config["num_hidden_layers"]) == ("qwen3", 420, 2)
    assert config["tie_word_embeddings"]
    assert load_tokenizer(tmp_path / "out/inputs/model").chat_template == template_text("qwen")
    assert load_recipe(tmp_path / "out/recipe.yaml").chat.template == "from_tokenizer"


def test_a_template_that_comes_with_an_absent_tokenizer_is_stood_in_for_and_said(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(SFT.format(path="gone.jsonl").replace("chatml", "from_tokenizer"))
    (tmp_path / "out").mkdir()
    build(load_recipe(tmp_path / "sft.yaml"), tmp_path / "sft.yaml", tmp_path / "out", None)
    said = {remark.what: remark.why for remark in read_built(tmp_path / "out").remarks}
    assert "chatml stood in" in said["chat template of openai-community/gpt2"]
    assert "the name says gpt2" in said["weights of openai-community/gpt2"]


def test_a_pipeline_is_rehearsed_without_its_curation() -> None:
    study = GALLERY / "quickstart"
    assert load_recipe(study / "curate.yaml").stage == "curate"
    found = commands.find_recipes(study / "pipeline.yaml")
    assert [path.name for path in found][:2] == ["tokenizer.yaml", "pretrain.yaml"]
    assert commands.find_recipes(study / "curate.yaml") == [study / "curate.yaml"]
