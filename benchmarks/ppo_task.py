"""The task of the PPO benchmark, made on the spot: a policy that writes random letters, and a reward model that likes vowels.

Both sides read the same folder: policy/, reward/ (trained on pairs, scaled to standard deviation 1), prompts.jsonl for ours, and
prompt_ids.json, the ids that our template makes of them, for TRL.
"""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

LETTERS, VOWELS = "abcdefghijklmnopqrstuvwxyz", "aeiou"
NUM_PROMPTS = 2048
SEED = 0


@dataclass(frozen=True)
class Task:
    """One size. Lengths are in tokens; a letter is one."""

    name: str
    layers: int
    hidden: int
    batch: int
    max_new_tokens: int
    sft_steps: int
    reward_steps: int
    learning_rate: float
    epochs: int = 4


TASKS = {
    # Weights hardly move, so that every update of every run does the same work.
    "speed": Task("speed", 4, 256, 32, 64, 100, 20, 1e-6),
    # Large enough that weights and not libraries fill the memory.
    "memory": Task("memory", 8, 1024, 4, 16, 0, 0, 1e-4, epochs=1),
    "score": Task("score", 2, 64, 64, 20, 300, 400, 3e-4),
}


def make_prompt(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 10)))


def make_answer(rng: random.Random, longest: int, vowels: float = 0.2) -> str:
    """Letters; lengths are uniform, so batches are as ragged as answers are."""
    return "".join(rng.choice(VOWELS if rng.random() < vowels else LETTERS) for _ in range(rng.randint(3, longest)))


def preference(text: str) -> float:
    """What the reward model is taught: many vowels, no letter twice in a row, about twelve of them."""
    repeats = sum(a == b for a, b in itertools.pairwise(text)) / max(len(text) - 1, 1)
    return 4 * sum(letter in VOWELS for letter in text) / len(text) - 2 * repeats - 0.05 * abs(len(text) - 12)


def make_task(task: Task, folder: Path) -> None:
    """Writes the folder. It takes a minute or two."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from alignment.data.chat import load_chat
    from alignment.data.render import render_answered, render_prompt
    from alignment.models.tokenizer import train_tokenizer
    from alignment.recipe.model_spec import ChatSpec, NewTokenizerSpec

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer([" ".join(LETTERS)] * 4, NewTokenizerSpec(algorithm="bpe", vocab_size=270), "chatml")
    chat = load_chat(tokenizer, ChatSpec(template="chatml"), folder)
    rng = random.Random(SEED)

    def encode(prompt: str, answer: str) -> list[int]:
        reply = [{"role": "assistant", "content": answer}]
        return render_answered(chat, [{"role": "user", "content": prompt}], reply, None)

    def pad(rows: list[list[int]]) -> dict[str, torch.Tensor]:
        longest = max(map(len, rows))
        ids = [row + [chat.pad_id] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def configure(**further) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=task.hidden, intermediate_size=2 * task.hidden, num_hidden_layers=task.layers,
            num_attention_heads=4, max_position_embeddings=256, tie_word_embeddings=False, pad_token_id=chat.pad_id,
            bos_token_id=None, eos_token_id=chat.stop_ids[0], **further,
        )  # fmt: skip

    torch.manual_seed(SEED)
    policy = LlamaForCausalLM(configure())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    for _ in range(task.sft_steps):
        batch = pad([encode(make_prompt(rng), make_answer(rng, task.max_new_tokens - 2)) for _ in range(32)])
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        policy(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    reward = LlamaForSequenceClassification(configure(num_labels=1))
    reward.model.load_state_dict(policy.model.state_dict())
    optimizer = torch.optim.AdamW(reward.parameters(), lr=1e-3)
    for _ in range(task.reward_steps):
        rows = []
        for _ in range(32):
            prompt = make_prompt(rng)
            pair = [make_answer(rng, task.max_new_tokens - 1, rng.random()) for _ in range(2)]
            rows += [encode(prompt, text) for text in sorted(pair, key=preference, reverse=True)]
        scores = reward(**pad(rows)).logits[:, 0].view(-1, 2)
        (-torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1]).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        rows = [encode(make_prompt(rng), make_answer(rng, task.max_new_tokens - 2)) for _ in range(256)]
        reward.score.weight.div_(reward(**pad(rows)).logits.std())
    prompts = [make_prompt(rng) for _ in range(NUM_PROMPTS)]
    ids = [render_prompt(chat, [{"role": "user", "content": prompt}]) for prompt in prompts]
    (folder / "prompt_ids.json").write_text(json.dumps(ids))
    lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
    (folder / "prompts.jsonl").write_text("".join(lines))
    for name, model in (("policy", policy), ("reward", reward)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
