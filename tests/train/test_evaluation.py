import torch

from alignment.train.evaluation import _rank_batches, count_weight


def test_every_row_counts_once_for_any_number_of_ranks() -> None:
    for num_rows in (1, 5, 8, 13):
        for ranks in (1, 2, 3, 4):
            counted = [
                position
                for rank in range(ranks)
                for positions, counts in _rank_batches(num_rows, rank, ranks, 2)
                if counts
                for position in positions
            ]
            assert sorted(counted) == list(range(num_rows))


def test_every_rank_runs_batches_of_the_same_sizes() -> None:
    for num_rows in (1, 5, 8, 13):
        sizes = [[len(positions) for positions, _ in _rank_batches(num_rows, rank, 3, 2)] for rank in range(3)]
        assert sizes[0] == sizes[1] == sizes[2]


def test_tokens_weigh_by_trained_targets_and_pairs_by_number() -> None:
    labels = torch.tensor([[-100, 3, -100], [7, 4, 5]])  # the first position is never a target
    assert count_weight({"labels": labels, "input_ids": labels}) == 3
    assert count_weight({"input_ids": torch.zeros(6, 4)}) == 3
