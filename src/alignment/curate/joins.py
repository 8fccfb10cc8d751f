"""Comparing all rows of all shards: which duplicates go, and which rows a balance takes.

Reads what the shards signed, and writes for each shard the places of the rows that are removed and why. One process does it, with
48 bytes a row for exact duplicates and 4 a hash for near ones; the shards' own order is the only one there is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.curate.duplicates import Rank, choose_survivors, group_exact, group_near
from alignment.curate.ledger import read_records, write_json
from alignment.data.quotas import Sharing, find_quotas
from alignment.recipe.curate_spec import BalanceSpec
from alignment.recipe.spec import Spec


def join(folder: Path, shards: Sequence[str], kind: str, spec: Spec, sources: Sequence[str]) -> dict[str, Any]:
    """Writes `join/<shard>.json` for every shard; returns numbers for the report.

    Raises DataError for a balance that the rows do not allow.
    """
    done = folder / "join" / "done.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    signed = [np.load(folder / "sign" / f"{shard}.npz") for shard in shards]
    sizes = [len(one["length"]) for one in signed]
    names = ["length", "source", *(["group"] if kind == "balance" else [])]
    names += ["sketch", "valid"] if kind == "near_dedup" else ["key"]
    arrays = {name: np.concatenate([one[name] for one in signed]) for name in names}
    if kind == "balance":
        removed, facts = _balance(arrays, spec, sources)
    else:
        removed, facts = _duplicates(arrays, kind, spec, folder, shards, sizes)
    (folder / "join").mkdir(exist_ok=True)
    start = 0
    for shard, size in zip(shards, sizes, strict=True):
        mine = {str(row - start): removed[row] for row in range(start, start + size) if row in removed}
        write_json(folder / "join" / f"{shard}.json", mine)
        start += size
    write_json(done, facts)
    return facts


def _duplicates(
    arrays: dict[str, np.ndarray], kind: str, spec: Spec, folder: Path, shards: Sequence[str], sizes: Sequence[int]
) -> tuple[dict[int, dict], dict[str, Any]]:
    if kind == "exact_dedup":
        groups = group_exact(np.ascontiguousarray(arrays["key"]).view(np.dtype((np.void, 16))).reshape(-1))
    else:
        groups = group_near(arrays["sketch"], arrays["valid"], spec)
    ranks = Rank(arrays["source"], arrays["length"]).order(spec.keep)
    survivors = choose_survivors(groups, ranks)
    gone = np.flatnonzero(survivors != np.arange(len(survivors)))
    ids = _ids_of(set(survivors[gone].tolist()), folder, shards, sizes)
    reason = "exact_duplicate" if kind == "exact_dedup" else "near_duplicate"
    removed = {}
    for row in gone.tolist():
        details: dict[str, Any] = {"kept": ids[int(survivors[row])]}
        if kind == "near_dedup":
            alike = float((arrays["sketch"][row] == arrays["sketch"][survivors[row]]).mean())
            details["similarity"] = round(alike, 3)
        removed[row] = {"reason": reason, "details": details}
    members = np.unique(survivors[gone], return_counts=True)[1] + 1
    clusters = {"clusters": len(members), "largest": int(members.max(initial=0))}
    return removed, {"kind": kind, **clusters, "sizes": _histogram(members)}


def _histogram(sizes: np.ndarray) -> dict[str, int]:
    """Clusters by size."""
    bounds = ((2, 2), (3, 5), (6, 10), (11, 100), (101, 1 << 60))
    names = ("2", "3-5", "6-10", "11-100", "more")
    found = {
        name: int(((sizes >= low) & (sizes <= high)).sum()) for name, (low, high) in zip(names, bounds, strict=True)
    }
    return {name: count for name, count in found.items() if count}


def _ids_of(rows: set[int], folder: Path, shards: Sequence[str], sizes: Sequence[int]) -> dict[int, Any]:
    found, start = {}, 0
    for shard, size in zip(shards, sizes, strict=True):
        if any(start <= row < start + size for row in rows):
            for place, record in enumerate(read_records(folder, "rows", shard)):
                if start + place in rows:
                    found[start + place] = record["id"]
        start += size
    return found


def _balance(
    arrays: dict[str, np.ndarray], spec: BalanceSpec, sources: Sequence[str]
) -> tuple[dict[int, dict], dict[str, Any]]:
    """The rows of each group with the smallest hashes, as many as its quota: a smaller budget takes a part of a larger one."""
    groups = arrays["group"]
    if spec.by == "source":
        groups = np.array([sources[int(group)] for group in groups], dtype=str) if len(groups) else groups
    present = sorted(set(groups.tolist()))
    names = list(spec.targets) or present
    sizes = [int((groups == name).sum()) for name in names]
    sharing = Sharing("rows", spec.temperature, spec.max_rows)
    shares = [spec.targets[name] for name in names] if spec.targets else [None] * len(names)
    quotas = find_quotas([f"balance: {name}" for name in names], shares, sizes, [0] * len(names), sharing)
    keep = np.zeros(len(groups), dtype=bool)
    for name, quota in zip(names, quotas, strict=True):
        mine = np.flatnonzero(groups == name)
        keys = arrays["key"][mine]
        keep[mine[np.lexsort([keys[:, 1], keys[:, 0]])[:quota]]] = True
    removed = {
        row: {"reason": "over_quota", "details": {"group": str(groups[row])}} for row in np.flatnonzero(~keep).tolist()
    }
    facts = {name: {"had": size, "quota": quota} for name, size, quota in zip(names, sizes, quotas, strict=True)}
    return removed, {"kind": "balance", "groups": facts}
