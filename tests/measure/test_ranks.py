"""Two processes measure what one measures; the ranks of a sharded model in step."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.fsdp import fully_shard

from alignment.measure.batches import map_batches
from alignment.measure.generation import generate_batch
from alignment.measure.logps import reward_scores, token_logps

PAD, STOP, CONTEXT = 0, 1, 64
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14, 15], [16, 17, 18]]
LONG = [
    [5] * (CONTEXT - 2),
    [6] * 3,
    [7] * (CONTEXT - 1),
]  # at the end of the context there is room for two tokens, and for one


def measure_all(causal, classifier, tokenizer) -> dict:
    greedy = generate_batch(causal, tokenizer, PROMPTS, (STOP,), PAD, 6, 1)
    sampled = generate_batch(causal, tokenizer, PROMPTS, (STOP,), PAD, 6, 1, temperature=1.5)
    long = generate_batch(causal, tokenizer, LONG, (), PAD, 6, 1)
    logps = token_logps(causal, PROMPTS, [[20, STOP]] * 5, pad_id=PAD, batch_size=1)
    scores = reward_scores(classifier, PROMPTS, pad_id=PAD, batch_size=1)
    return {"greedy": greedy, "long": long, "sampled": sampled, "logps": [row.sum for row in logps], "scores": scores}


def rank_main(rank: int, folder, sharded: bool, causal, classifier, tokenizer) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    if sharded:
        mesh = torch.distributed.init_device_mesh("cpu", (2,))
        for model in (causal, classifier):
            for layer in model.base_model.layers if hasattr(model.base_model, "layers") else model.base_model.h:
                fully_shard(layer, mesh=mesh)
            fully_shard(model, mesh=mesh)
    worked: list[int] = []
    map_batches(causal, [[2], [0], [1]], lambda number, rows: worked.append(number) or rows)
    torch.save(measure_all(causal, classifier, tokenizer) | {"worked": worked}, folder / f"rank{rank}.pt")
    dist.barrier()
    os._exit(0)


@pytest.mark.parametrize(("sharded", "name"), [(False, "llama"), (True, "llama"), (True, "gpt2")])
def test_two_ranks_measure_what_one_does(make_causal, make_classifier, tokenizer, tmp_path, sharded, name):
    causal, classifier = make_causal(name), make_classifier()
    alone = measure_all(causal, classifier, tokenizer)
    mp.start_processes(rank_main, (tmp_path, sharded, causal, classifier, tokenizer), nprocs=2, start_method="fork")
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=False)
        assert found["worked"] == ([[0, 2], [1, 2]] if sharded else [[0, 2], [1]])[rank]
        assert found["long"] == alone["long"]
        assert found["greedy"] == alone["greedy"]
        assert found["sampled"] == alone["sampled"]
        assert found["logps"] == pytest.approx(alone["logps"], abs=1e-4)
        assert found["scores"] == pytest.approx(alone["scores"], abs=1e-4)
