import pytest
import torch

from alignment.errors import DataError, LaunchError
from alignment.measure.logps import check_packing, completion_kl, masked_logps, reward_scores, token_logps

PAD, STOP = 0, 1
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
COMPLETIONS = [[20, 21, STOP], [22, STOP], [23, 24, 25, STOP]]
DOCUMENTS = [[5, 6, 7, 8], [30, 31, 32, 33, 34, 35, 36], [40], [12, 11, 10, 9]]


def next_logps(model, prefix: list[int]) -> torch.Tensor:
    """Oracle: one row, no padding, no mask, no cache."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1].double().log_softmax(-1)


def slow_logp(model, prompt: list[int], completion: list[int]) -> float:
    return sum(next_logps(model, prompt + completion[:n])[token].item() for n, token in enumerate(completion))


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_logps_are_those_of_each_prefix_alone(make_causal, name, batch_size):
    model = make_causal(name)
    rows = token_logps(model, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=batch_size)
    assert [row.count for row in rows] == [3, 2, 4]
    expected = [slow_logp(model, prompt, completion) for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert [row.sum for row in rows] == pytest.approx(expected, abs=1e-4)


def test_masked_logps_count_only_masked_tokens_and_never_the_first(make_causal):
    model = make_causal()
    [row] = masked_logps(model, [[5, 6, 7, 8]], [[1, 0, 1, 1]], pad_id=PAD, batch_size=1)
    assert row.count == 2
    assert row.sum == pytest.approx(slow_logp(model, [5, 6], [7, 8]), abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_packed_logps_equal_padded_ones(make_causal, name):
    model = make_causal(name)
    padded = token_logps(model, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=8)
    packed = token_logps(model, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=8, packed=True)
    assert [row.sum for row in packed] == pytest.approx([row.sum for row in padded], abs=1e-4)


def test_logps_are_summed_in_fp32_of_a_bf16_model(make_causal):
    model = make_causal().bfloat16()
    [row] = token_logps(model, [[5, 6]], [[7]], pad_id=PAD, batch_size=1)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[5, 6]])).logits[0, -1]
    assert row.sum == pytest.approx(logits.float().log_softmax(-1)[7].item(), abs=1e-5)


def test_measuring_leaves_the_mode_of_every_module(make_causal):
    model = make_causal().train()
    model.lm_head.eval()
    token_logps(model, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=8)
    assert model.training
    assert model.model.layers[0].training
    assert not model.lm_head.training


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_isolated_models_pass_the_packing_proof(make_causal, name, kernel):
    model = make_causal(name)
    model.set_attn_implementation(kernel)
    assert check_packing(model, DOCUMENTS, pad_id=PAD) < 1e-5


def test_leaking_models_are_refused_by_class_and_kernel(make_causal):
    with pytest.raises(LaunchError, match=r"OPTForCausalLM with sdpa attention: packed logits differ"):
        check_packing(make_causal("opt"), DOCUMENTS, pad_id=PAD)


def test_models_without_positions_are_refused():
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=48, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(LaunchError, match="BloomForCausalLM with eager attention: takes no position_ids"):
        check_packing(model, DOCUMENTS, pad_id=PAD)


def test_transformers_still_leaks_with_its_default_cache(make_causal):
    """The reason for use_cache=False everywhere (transformers 5.23)."""
    model = make_causal()
    model.config.use_cache = True
    ids = torch.tensor([DOCUMENTS[0] + DOCUMENTS[1]])
    positions = torch.cat([torch.arange(4), torch.arange(7)])[None]
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([DOCUMENTS[1]])).logits[0]
        assert (model(input_ids=ids, position_ids=positions).logits[0, 4:] - alone).abs().max() > 0.01


def test_kl_is_the_full_distribution_summed_over_the_completion(make_causal):
    model, against = make_causal(seed=0), make_causal(seed=1)
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        total = 0.0
        for n in range(len(completion)):
            ours, theirs = (next_logps(one, prompt + completion[:n]) for one in (model, against))
            total += (ours.exp() * (ours - theirs)).sum().item()
        expected.append(total)
    found = completion_kl(model, against, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=8)
    assert found == pytest.approx(expected, rel=1e-4)
    assert completion_kl(model, model, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=8) == [0.0, 0.0, 0.0]


def test_kl_between_vocabularies_is_refused(make_causal):
    against = make_causal(seed=1)
    against.resize_token_embeddings(50)
    with pytest.raises(DataError, match="a vocabulary of 48 against one of 50"):
        completion_kl(make_causal(), against, PROMPTS, COMPLETIONS, pad_id=PAD, batch_size=8)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_score_is_the_same_alone_in_a_batch_and_padded_on_either_side(make_classifier, name):
    model = make_classifier(name)
    rows = [[5, 6, 7, STOP], [8, STOP], [9, 10, 11, 12, 13, 14, PAD], [15, PAD, 16]]
    alone = [reward_scores(model, [row], pad_id=PAD, batch_size=1)[0] for row in rows]
    with torch.no_grad():
        last = [
            model(input_ids=torch.tensor([row]), use_cache=False).logits[0, 0].item()
            for row in (rows[0], rows[1], rows[3])
        ]
    assert [alone[0], alone[1], alone[3]] == pytest.approx(last, abs=1e-5)
    for side in ("right", "left"):
        assert reward_scores(model, rows, pad_id=PAD, batch_size=8, padding_side=side) == pytest.approx(alone, abs=1e-5)


def test_an_adapted_classifier_is_scored_by_the_head_it_trains(make_classifier):
    from peft import LoraConfig, get_peft_model

    plain = make_classifier()
    expected = reward_scores(plain, PROMPTS, pad_id=PAD, batch_size=2)
    model = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS"))
    assert reward_scores(model, PROMPTS, pad_id=PAD, batch_size=2) == pytest.approx(expected, abs=1e-5)
    head = model.base_model.model.score.modules_to_save["default"]
    with torch.no_grad():
        head.weight.neg_()
    negated = [-score for score in expected]
    assert reward_scores(model, PROMPTS, pad_id=PAD, batch_size=2) == pytest.approx(negated, abs=1e-5)


def test_a_row_that_ends_in_the_pad_token_is_scored_at_it(make_classifier):
    """transformers 5.23 scores such a row one token early, because it looks for the pad id."""
    model = make_classifier()
    row = [5, 6, 7, PAD]
    assert reward_scores(model, [row], pad_id=PAD, batch_size=1) != pytest.approx(
        reward_scores(model, [row[:3]], pad_id=PAD, batch_size=1), abs=1e-3
    )
    with torch.no_grad():
        own = [model(input_ids=torch.tensor([ids]), use_cache=False).logits.item() for ids in (row, row[:3])]
    assert own[0] == pytest.approx(own[1], abs=1e-5)


def test_the_stop_token_changes_the_score(make_classifier):
    with_stop, without = reward_scores(make_classifier(), [[5, 6, 7, STOP], [5, 6, 7]], pad_id=PAD, batch_size=2)
    assert abs(with_stop - without) > 1e-3


def test_a_model_without_a_score_head_is_refused(make_causal):
    with pytest.raises(LaunchError, match="LlamaForCausalLM has 0 modules named score"):
        reward_scores(make_causal(), [[5]], pad_id=PAD, batch_size=1)
