import torch

from alignment.train.collate import TokenCollator, make_position_ids

ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, 8], "seq_lengths": [2, 2]},
    {"input_ids": [9, 4], "labels": [-100, 4], "seq_lengths": [2]},
]


def test_positions_restart_at_each_document() -> None:
    assert make_position_ids([3, 1, 2]).tolist() == [0, 1, 2, 0, 0, 1]


def test_padded_rows_have_an_attention_mask_and_no_trained_padding() -> None:
    batch = TokenCollator(pad_id=0, packed=False)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8], [-100, 4, -100, -100]]


def test_packed_rows_have_positions_and_no_attention_mask() -> None:
    batch = TokenCollator(pad_id=0, packed=True)(ROWS)
    assert "attention_mask" not in batch
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert batch["labels"].tolist()[1] == [-100, 4, -100, -100]


def test_flattened_rows_carry_the_boundaries_of_every_document() -> None:
    batch = TokenCollator(pad_id=0, packed=True, flatten=True)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 2, 4, 6]
    assert batch["max_length_q"] == 2
    assert batch["cu_seq_lens_q"].dtype == torch.int32
