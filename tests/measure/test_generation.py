import pytest
import torch

from alignment.errors import DataError
from alignment.measure.batches import length_batches
from alignment.measure.generation import cut_at_stop, generate_batch, pad_left

PAD, STOP = 0, 1
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17], [5, 6, 7], [PAD, 18, PAD]]


def slow_greedy(model, prompt: list[int], steps: int, stop_ids=(STOP,)) -> list[int]:
    """Oracle: one row, no padding, no cache."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
        if ids[-1] in stop_ids:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_completions_are_those_of_each_prompt_alone(make_causal, tokenizer, name, batch_size):
    model = make_causal(name)
    expected = [slow_greedy(model, prompt, 8) for prompt in PROMPTS]
    found = generate_batch(model, tokenizer, PROMPTS, (STOP,), PAD, 8, batch_size)
    assert [list(one.ids) for one in found] == expected


def test_a_completion_ends_with_its_first_stop_token(make_causal, tokenizer):
    model = make_causal()
    free = slow_greedy(model, PROMPTS[0], 8, stop_ids=())
    stop = free[2]
    cut = free[: free.index(stop) + 1]
    [found] = generate_batch(model, tokenizer, PROMPTS[:1], (STOP, stop), PAD, 8, 4)
    assert (list(found.ids), found.stopped) == (cut, True)
    assert found.text == tokenizer.decode(cut[:-1], skip_special_tokens=True)
    [short] = generate_batch(model, tokenizer, PROMPTS[:1], (STOP,), PAD, 1, 4)
    assert (list(short.ids), short.stopped) == (free[:1], False)


def test_the_models_own_generation_settings_are_set_aside_and_put_back(make_causal, tokenizer):
    """generate (transformers 5.23) would take the penalty from the model where the passed config is silent."""
    model = make_causal()
    plain = generate_batch(model, tokenizer, PROMPTS, (STOP,), PAD, 8, 4)
    model.generation_config.repetition_penalty = 5.0
    assert generate_batch(model, tokenizer, PROMPTS, (STOP,), PAD, 8, 4) == plain
    assert model.generation_config.repetition_penalty == 5.0


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_adapted_models_generate_alike_whatever_their_task_type(make_causal, tokenizer, task_type):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type=task_type)
    model = get_peft_model(make_causal(), config)
    own = model.get_base_model().generation_config
    expected = [slow_greedy(model, prompt, 6) for prompt in PROMPTS]
    assert [list(one.ids) for one in generate_batch(model, tokenizer, PROMPTS, (STOP,), PAD, 6, 4)] == expected
    assert model.get_base_model().generation_config is own


def test_sampling_follows_its_seed_and_leaves_the_global_one(make_causal, tokenizer):
    model = make_causal()
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    runs = [generate_batch(model, tokenizer, PROMPTS, (), PAD, 8, 4, temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    assert torch.rand(1) == expected_next
    assert runs[0] == runs[1] != runs[2]


def test_two_batches_draw_other_numbers(make_causal, tokenizer):
    found = generate_batch(make_causal(), tokenizer, [[5], [5]], (), PAD, 8, 1, temperature=2.0)
    assert found[0] != found[1]


def test_sampling_reaches_beyond_fifty_tokens(tokenizer):
    """transformers' default top_k=50 is not the policy's distribution."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=400, pad_token_id=0, eos_token_id=None, bos_token_id=None, **shape))
    torch.nn.init.normal_(model.lm_head.weight, std=1e-3)
    found = generate_batch(model, tokenizer, [[2]] * 256, (), PAD, 1, 256, temperature=1.0)
    assert len({token for one in found for token in one.ids}) > 100


def test_a_prompt_near_the_context_limit_gets_the_room_that_is_left(make_causal, tokenizer):
    model = make_causal("gpt2")
    long = [2 + n % 40 for n in range(60)]
    found = generate_batch(model, tokenizer, [long, [5]], (), PAD, 10, 4)
    assert [len(one.ids) for one in found] == [4, 10]
    assert list(found[1].ids) == slow_greedy(model, [5], 10, stop_ids=())
    with pytest.raises(DataError, match="prompt 1: 64 tokens, and 0 more like it; the model reads 64"):
        generate_batch(model, tokenizer, [[5], [2] * 64], (STOP,), PAD, 4, 4)


def test_an_empty_prompt_is_refused(make_causal, tokenizer):
    with pytest.raises(DataError, match="prompt 1: no tokens"):
        generate_batch(make_causal(), tokenizer, [[5], []], (STOP,), PAD, 4, 4)


def test_no_prompts_give_no_completions(make_causal, tokenizer):
    assert generate_batch(make_causal(), tokenizer, [], (STOP,), PAD, 4, 4) == []


def test_rows_are_padded_on_the_left():
    batch = pad_left([[5, 6], [7]], PAD, torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[5, 6], [PAD, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 1]]


def test_cutting_keeps_the_stop_token():
    assert cut_at_stop([4, 5, 9, 5, 0], (9, 5)) == ((4, 5), True)
    assert cut_at_stop([4, 4], (9,)) == ((4, 4), False)


def test_short_rows_share_batches_within_the_budget_of_the_longest():
    assert length_batches([2, 8, 4, 4, 2, 1], 1) == [[1], [2, 3], [0, 4, 5]]
    assert length_batches([0, 0], 4) == [[0, 1]]
    assert length_batches([], 4) == []
