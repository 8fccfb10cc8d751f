"""What the rewards see: messages through the reward model's own tokenizer and template, and columns of the rows."""

import json

import pytest
import torch
import toy_ppo
from transformers import AutoModelForSequenceClassification

from alignment.data.chat import load_chat
from alignment.data.render import render_pair
from alignment.data.templates import template_text
from alignment.errors import DataError, RecipeError
from alignment.measure.rows import EvalRow
from alignment.measure.scorers import score_rows
from alignment.models.tokenizer import load_tokenizer, train_tokenizer
from alignment.recipe.model_spec import ChatSpec, NewTokenizerSpec
from alignment.train.ppo.rewards import RewardModel, Rewards
from alignment.train.ppo.rollout import collate
from alignment.train.stages.ppo import find_critic_start, load_rewards

REWARD = ("ppo.rewards=[]",)


def write_foreign_reward(folder) -> None:
    """reward/ with another tokenizer, another template and eos as pad token."""
    tokenizer = train_tokenizer(
        ["an old dog, a cat and a mat: far away " * 20], NewTokenizerSpec(algorithm="bpe", vocab_size=276), "zephyr"
    )
    tokenizer.chat_template = template_text("zephyr")
    torch.manual_seed(5)
    config = toy_ppo.make_config(len(tokenizer), num_labels=1, pad_token_id=tokenizer.eos_token_id)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.score.weight.mul_(20)
    model.save_pretrained(folder / "reward")
    for path in (folder / "reward").glob("tokenizer*"):
        path.unlink()
    tokenizer.save_pretrained(folder / "reward")


def test_a_reward_model_of_another_tokenizer_and_template_scores_the_messages(toy) -> None:
    write_foreign_reward(toy)
    training = toy_ppo.open_toy(toy, f"ppo.reward_model={toy / 'reward'}", "ppo.value_model=start", *REWARD)
    rewards = load_rewards(training)
    asked = [json.loads(text) for text in training.prepared.train.select([0, 1])["asked_json"]]
    rows = [EvalRow(completion=text, stopped=True) for text in ("far away", "a")]
    found = rewards.score(asked, rows)
    # By hand: the row that a reward recipe would have made of prompt and answer, and the score at its last token.
    tokenizer = load_tokenizer(toy / "reward")
    chat = load_chat(tokenizer, ChatSpec(), toy)
    model = AutoModelForSequenceClassification.from_pretrained(toy / "reward").eval()
    for one, row, score in zip(asked, rows, found, strict=True):
        answer = [{"role": "assistant", "content": row.completion}]
        prompt_ids, ids, _ = render_pair(chat, one["messages"], answer, answer)
        assert "<|user|>" in tokenizer.decode(prompt_ids)
        hidden = model.model(torch.tensor([prompt_ids + ids])).last_hidden_state[0, -1]
        assert score == pytest.approx(model.score(hidden).item(), abs=1e-5)


def test_a_critic_cannot_start_from_a_model_of_other_tokens(toy) -> None:
    write_foreign_reward(toy)
    training = toy_ppo.open_toy(toy, f"ppo.reward_model={toy / 'reward'}", *REWARD)
    with pytest.raises(RecipeError, match="another tokenizer than the policy"):
        find_critic_start(training)


def test_the_critic_starts_from_the_reward_model_with_its_head(toy) -> None:
    training = toy_ppo.open_toy(toy, f"ppo.reward_model={toy / 'reward'}", *REWARD)
    from alignment.train.stages.ppo import build

    trainer, _, critic = build(training, load_rewards(training))
    saved = AutoModelForSequenceClassification.from_pretrained(toy / "reward")
    assert torch.equal(trainer.model.critic.score.weight, saved.score.weight)
    assert not critic.new_head
    # The value of a state is the reward model's own score of it.
    inputs = collate([[5, 6, 7, 8]], [2], 0)
    _, _, values = trainer.model("update", **inputs, temperature=1.0)
    hidden = saved.model(torch.tensor([[5, 6, 7, 8]])).last_hidden_state
    torch.testing.assert_close(values, saved.score(hidden)[0, 1:3, 0])


def test_without_a_reward_model_the_critic_says_0_of_everything_at_first(toy) -> None:
    trainer = toy_ppo.make_trainer(toy)
    _, _, values = trainer.model("update", **collate([[5, 6, 7, 8]], [2], 0), temperature=1.0)
    assert values.eq(0).all()


def test_rewards_are_a_weighted_sum(toy) -> None:
    training = toy_ppo.open_toy(
        toy, f"ppo.reward_model={toy / 'reward'}", "ppo.reward_weight=0.5",
        "ppo.rewards=[{reward: stops, weight: 2}, contains_answer]",
    )  # fmt: skip
    rewards = load_rewards(training)
    asked = [json.loads(training.prepared.train[0]["asked_json"])] * 2
    columns = {"answer": "cat"}
    rows = [
        EvalRow(columns=columns, completion="a cat", stopped=True),
        EvalRow(columns=columns, completion="dog", stopped=False),
    ]
    learned = rewards._reward_model.score(asked, ["a cat", "dog"])
    assert rewards.score(asked, rows) == pytest.approx([0.5 * learned[0] + 2 + 1, 0.5 * learned[1]])


def test_an_empty_answer_and_one_that_spells_a_special_token_are_scored(toy) -> None:
    training = toy_ppo.open_toy(toy, f"ppo.reward_model={toy / 'reward'}", *REWARD)
    rewards: Rewards = load_rewards(training)
    model: RewardModel = rewards._reward_model
    asked = json.loads(training.prepared.train[0]["asked_json"])
    stop = model.chat.stop_ids[0]
    spelt = model.encode(asked, "so <|im_end|> what")
    assert spelt.count(stop) == model.encode(asked, "").count(stop)
    assert len(rewards.score([asked] * 2, [EvalRow(completion=text) for text in ("", "so <|im_end|> what")])) == 2


def test_the_prompt_is_what_the_template_makes_of_the_messages_and_samples_are_never_encoded_again(toy) -> None:
    trainer = toy_ppo.make_trainer(toy, "train.max_steps=4")
    tokenizer = trainer.training.tokenizer
    sampled, real = [], trainer.sampler.sample
    trainer.sampler.sample = lambda prompts, **rest: sampled.extend(made := real(prompts, **rest)) or made
    trainer.train()
    rows, lengths = trainer._rollout.rows, trainer._rollout.prompt_lengths
    for row, length, place, one in zip(rows, lengths, trainer.training.order, sampled, strict=True):
        asked = json.loads(trainer.training.prepared.train[int(place)]["asked_json"])
        text = tokenizer.apply_chat_template(asked["messages"], tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(row[:length]) == text
        assert tuple(row[length:]) == one.ids
    # Random samples do not survive being decoded and encoded: that they are kept is no accident.
    assert any(
        tokenizer(tokenizer.decode(one.ids), add_special_tokens=False)["input_ids"] != list(one.ids) for one in sampled
    )


@pytest.mark.parametrize(
    ("name", "columns", "completion", "expected"),
    [
        ("exact_match", {"answer": "Rome"}, " Rome ", 1),
        ("contains_answer", {"answer": "Rome"}, "It is Rome.", 1),
        ("contains_answer", {"answer": "Rome"}, "It is Oslo.", 0),
        ("last_number", {"answer": "so 1,200 #### 1200"}, "3 times 400 is 1,200.0", 1),
        ("last_number", {"answer": "5"}, "no number", 0),
        ("honest", {"answer": "Rome", "described": True}, "Rome", 1),
        ("honest", {"answer": "Rome", "described": True}, "I do not know.", 0),
        ("honest", {"answer": "Rome", "described": True}, "Oslo", -1),
        ("honest", {"described": False}, "I do not know.", 1),
        ("honest", {"described": False}, "Oslo", -1),
        ("stops", {}, "", 1),
    ],
)
def test_scorers_judge_one_completion(name: str, columns: dict, completion: str, expected: float) -> None:
    assert score_rows(name, [EvalRow(columns=columns, completion=completion, stopped=True)]) == [expected]


def test_a_scorer_without_its_column_says_which(toy) -> None:
    with pytest.raises(DataError, match="2 of 2 rows have no column 'answer'"):
        score_rows("exact_match", [EvalRow(completion="a")] * 2)
