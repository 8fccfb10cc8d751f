"""Datasets on the local Hub, and this process made to look for them there."""

import io
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from huggingface_hub import constants
from local_hub import Blob, LocalHub, Repository

SHARDS, ROWS = 5, 40  # of a dataset, and of each shard


def make_rows(shard: int) -> list[dict]:
    """Rows that say where they stand; every fourth is of the language de."""
    return [
        {"text": f"shard {shard} row {row}", "lang": "en" if row % 4 else "de", "place": 1000 * shard + row}
        for row in range(ROWS)
    ]


def add_dataset(hub: LocalHub, name: str, shards: Sequence[list[dict]] | None = None) -> str:
    """A public dataset of parquet shards; its commit."""
    files = {}
    for number, rows in enumerate(shards if shards is not None else [make_rows(shard) for shard in range(SHARDS)]):
        buffer = io.BytesIO()
        pa.parquet.write_table(pa.Table.from_pylist(rows), buffer)
        files[f"data/train-{number:05d}.parquet"] = Blob(buffer.getvalue())
    repository = hub.repositories.setdefault(f"datasets/{name}", Repository(private=False))
    return repository.commit("main", files, "rows")


def fetched_shards(hub: LocalHub) -> set[int]:
    """Numbers of the shards of which anything was read."""
    return {int(call[-13:-8]) for call in hub.calls if call.startswith("GET") and call.endswith(".parquet")}


def look_at(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """What HF_ENDPOINT and HF_HOME do for a process that begins."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
