"""`alignment import`: what another project's recipe becomes, and that nothing of it is left out in silence."""

import json
from pathlib import Path

import other_recipes as other
import pytest

from alignment.cli import main
from alignment.commands.check import check_files
from alignment.recipe.loader import load_recipe


def convert(tmp_path: Path, text: str, *options: str, folder: str = "theirs", code: int = 0) -> Path:
    """The file that `alignment import` writes."""
    theirs, ours = tmp_path / folder / "config.yaml", tmp_path / "ours" / "sft.yaml"
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text(text, encoding="utf-8")
    assert main(["import", str(theirs), "--out", str(ours), *options]) == code
    return ours


def test_a_recipe_of_the_handbook_keeps_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = convert(tmp_path, other.HANDBOOK_SFT, "--rows", "204800", code=2)
    recipe = load_recipe(path)
    assert (recipe.stage, recipe.seed, recipe.model.path, recipe.model.dtype) == (
        "sft",
        42,
        "mistralai/Mistral-7B-v0.1",
        "bfloat16",
    )
    assert recipe.train.global_batch_size == 16 * 4 * 8
    assert (recipe.train.learning_rate, recipe.train.lr_scheduler_type) == (2e-5, "cosine")
    assert recipe.train.warmup_steps == 40  # a tenth of 204800 / 512 steps
    first, second = recipe.data.train
    assert (first.path, first.split, first.repeat, first.format) == (
        "HuggingFaceH4/ultrachat_200k",
        "train_sft",
        0.5,
        "messages",
    )
    assert (second.name, second.repeat) == ("all", None)
    assert recipe.chat.train_on == "all"
    said = capsys.readouterr().err
    assert "optim: rmsprop. No such optimiser here" in said
    assert "line 37: optim" in said


def test_rows_of_a_test_split_are_held_out_and_that_is_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe = load_recipe(
        convert(tmp_path, other.HANDBOOK_SFT.replace("optim: rmsprop\n", ""), "--rows", "204800", code=2)
    )
    assert [(source.split, source.rows) for source in recipe.data.eval] == [("test_sft", 1000)]
    assert "here they stay held out" in capsys.readouterr().err


def test_the_number_of_a_mixer_is_of_the_train_splits_and_test_splits_are_whole(tmp_path: Path) -> None:
    recipe = load_recipe(convert(tmp_path, other.HANDBOOK_MIXER))
    sources = [(source.path, source.split, source.repeat) for source in recipe.data.train]
    assert sources == [("org/chats", "train_sft", 0.5), ("org/more", "train_sft", None)]
    held_out = [(source.path, source.split, source.repeat) for source in recipe.data.eval]
    assert held_out == [("org/chats", "test_sft", None), ("org/more", "test_sft", None)]


def test_a_template_is_carried_byte_for_byte_beside_the_recipe(tmp_path: Path) -> None:
    path = convert(tmp_path, other.HANDBOOK_SFT, code=2)
    assert load_recipe(path).chat.template == "sft.jinja"
    assert path.with_name("sft.jinja").read_text().startswith("{% for message in messages %}{{ '<|' +")
    assert check_files([path], [])[0].errors == []


def test_a_share_of_unknown_steps_is_a_difference_and_no_guess(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = load_recipe(convert(tmp_path, other.HANDBOOK_SFT, code=2))
    assert recipe.train.warmup_steps == 0
    assert "give --rows" in capsys.readouterr().err


def test_a_file_of_the_trl_command_line_says_what_is_left_to_defaults(tmp_path: Path) -> None:
    path = convert(tmp_path, other.TRL_DPO)
    recipe = load_recipe(path)
    assert (recipe.dpo.loss_type, recipe.dpo.beta, recipe.dpo.reference) == ("apo_zero", 1.0, "start")
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.lora.target_modules) == (32, 16, "all-linear")
    assert recipe.train.global_batch_size == 16
    assert (recipe.train.max_steps, recipe.train.warmup_steps, recipe.train.lr_scheduler_type) == (200, 20, "linear")
    assert recipe.data.eval[0].split == "test"
    assert "lr_scheduler_type: linear           # its default" in path.read_text()


def test_llama_factory_reads_its_table_of_data_sets(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(other.DATASET_INFO))
    recipe = load_recipe(convert(tmp_path, other.LLAMA_FACTORY_SFT))
    own, chats = recipe.data.train
    assert own.path.endswith("data/identity.json")
    assert dict(own.columns) == {"instruction": "question", "output": "answer"}
    assert (chats.path, chats.name, chats.format) == ("org/chats", "nl", "sharegpt")
    assert dict(chats.columns) == {"conversations": "turns"}
    assert dict(chats.roles) == {"visitor": "user"}
    assert (recipe.lora.r, recipe.lora.lora_alpha, recipe.lora.target_modules) == (8, 16, "all-linear")
    assert (recipe.chat.template, recipe.chat.train_on) == ("qwen", "assistant")


def test_llama_factory_without_its_table_says_what_it_takes_a_name_for(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe = load_recipe(convert(tmp_path, other.LLAMA_FACTORY_SFT))
    assert [source.path for source in recipe.data.train] == ["data/identity.json", "data/chats.json"]
    assert "--dataset_info FILE says what it is" in capsys.readouterr().err


def test_axolotl_with_keys_that_have_no_value(tmp_path: Path) -> None:
    recipe = load_recipe(convert(tmp_path, other.AXOLOTL_SFT))
    source = recipe.data.train[0]
    assert (source.path, source.split, source.format) == ("mlabonne/FineTome-100k", "train[:20%]", "sharegpt")
    assert (recipe.lora.load_in_4bit, recipe.lora.target_modules) == (True, ("q_proj", "v_proj"))
    assert (recipe.data.packing, recipe.data.max_length, recipe.data.on_too_long) == (True, 2048, "drop")
    assert (recipe.train.optim, recipe.train.warmup_steps, recipe.train.bf16) == ("adamw_bnb_8bit", 10, "auto")


def test_a_reward_model_of_axolotl(tmp_path: Path) -> None:
    recipe = load_recipe(convert(tmp_path, other.AXOLOTL_REWARD))
    assert (recipe.stage, recipe.reward.center_rewards_coefficient) == ("reward", 0.01)
    assert recipe.data.train[0].format == "preference"


@pytest.mark.parametrize("text", [other.TRL_DPO, other.LLAMA_FACTORY_SFT, other.AXOLOTL_SFT])
def test_code_of_a_repository_is_left_out_unless_a_commit_says_which(tmp_path: Path, text: str) -> None:
    path = convert(tmp_path, text + "trust_remote_code: true\n")
    assert check_files([path], [])[0].errors == []
    assert "transformers has the architecture itself" in path.read_text().partition("taken to be so:")[2]
    assert load_recipe(path).model.trust_remote_code is False


def test_code_of_a_commit_is_carried(tmp_path: Path) -> None:
    pinned = f"model_revision: {'0a' * 20}\ntrust_remote_code: true\n"
    recipe = load_recipe(convert(tmp_path, other.TRL_DPO + pinned))
    assert (recipe.model.trust_remote_code, recipe.model.revision) == (True, "0a" * 20)


def test_dropout_of_adapters_is_left_out_where_pairs_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = convert(tmp_path, other.TRL_DPO + "lora_dropout: 0.05\n")
    assert "#   line 15: lora_dropout: 0.05" in path.read_text().partition("without effect on training:")[2]
    assert check_files([path], [])[0].errors == []
    convert(tmp_path / "kept", other.TRL_DPO + "lora_dropout: 0.05\ndisable_dropout: false\n", code=2)
    assert "disable_dropout: False. Pairs are compared without dropout" in capsys.readouterr().err
    recipe = load_recipe(convert(tmp_path / "sft", other.LLAMA_FACTORY_SFT + "lora_dropout: 0.05\n"))
    assert recipe.lora.lora_dropout == 0.05


def test_every_key_of_the_source_is_accounted_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The bug to catch: a key that the conversion never looks at, and that nobody hears of."""
    path = convert(tmp_path, other.TRL_DPO + "use_quantum_optimiser: true\npush_to_hub: true\n", code=2)
    assert "use_quantum_optimiser: True. Not known here" in capsys.readouterr().err
    text = path.read_text()
    assert "#   line 16: push_to_hub: True" in text.partition("without effect on training:")[2]


@pytest.mark.parametrize(
    ("text", "folder", "said"),
    [
        ("distributed_type: FSDP\n", "x", "a launcher config; a recipe was expected"),
        ("model_name_or_path: a/b\ndataset_name: c/d\n", "model/orpo", "there is no orpo here"),
        (other.LLAMA_FACTORY_SFT.replace("stage: sft", "stage: kto"), "x", "stage: kto; one of sft, pt, rm, dpo"),
        (other.LLAMA_FACTORY_SFT + "image_max_pixels: 3\n", "x", "a recipe for images and text"),
        (other.AXOLOTL_SFT + "rl: grpo\n", "x", "rl: grpo; dpo or ipo was expected"),
        ("a: 1\n", "x", "found a; a training recipe of axolotl, LLaMA-Factory, alignment-handbook or TRL was expected"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str, folder: str, said: str
) -> None:
    assert not convert(tmp_path, text, folder=folder, code=2).exists()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_a_file_without_a_value_is_refused_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture, text: str
) -> None:
    assert not convert(tmp_path, text, code=2).exists()
    said = capsys.readouterr().err
    assert "config.yaml:1:1: error: found nothing; a value was expected" in said
    assert "1 error in " in said


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    convert(tmp_path, other.TRL_DPO)
    before = (tmp_path / "ours" / "sft.yaml").read_text()
    convert(tmp_path, other.AXOLOTL_REWARD, code=2)
    assert (tmp_path / "ours" / "sft.yaml").read_text() == before
    assert "exists and is not overwritten" in capsys.readouterr().err


def test_without_out_the_recipe_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.yaml").write_text(other.AXOLOTL_REWARD)
    assert main(["import", str(tmp_path / "a.yaml")]) == 0
    assert capsys.readouterr().out.startswith("# From axolotl: ")
