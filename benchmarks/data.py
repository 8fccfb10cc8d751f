"""The data side beside its peers, job by job, in one process and in turn.

    python -m benchmarks.data FOLDER [--runs 5] [--out benchmarks/results/data.md]

FOLDER holds running text (.txt). Every figure is the median of alternating runs in CPU seconds of one thread; both sides get the same
input, and where both give a result of one kind it is compared before anything is timed.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

DOCUMENT_CHARACTERS = 5000
PLAN_ROWS = 10_000_000
Cell = tuple  # job, peer, our function, the peer's, units of work, and the peer's where they are others


def read_documents(folder: Path) -> list[str]:
    """The folder's text in documents of 5,000 characters; without what is not UTF-8."""
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(folder.rglob("*.txt"))]
    return [
        text[start : start + DOCUMENT_CHARACTERS]
        for text in texts
        for start in range(0, len(text), DOCUMENT_CHARACTERS)
    ]


def tokens_cell(documents: list[str]) -> Cell:
    """Ids of documents: our encoder's engine against a batched `datasets.map`."""
    import datasets

    from alignment.data.fast_tokens import make_engine
    from alignment.models.tokenizer import train_tokenizer
    from alignment.recipe.model_spec import NewTokenizerSpec

    datasets.disable_progress_bars()
    tokenizer = train_tokenizer(documents, NewTokenizerSpec(algorithm="bpe", vocab_size=16_000), ["<|endoftext|>"])
    # Choosing the engine costs the same for a little text and for much; training sets are not little.
    many = documents * 4
    table = datasets.Dataset.from_dict({"text": many})

    def peer() -> list[list[int]]:
        mapped = table.map(
            lambda rows: {"ids": tokenizer(rows["text"], add_special_tokens=False)["input_ids"]},
            batched=True, load_from_cache_file=False, keep_in_memory=True,
        )  # fmt: skip
        return mapped["ids"][:]

    def ours() -> list[list[int]]:
        return make_engine(tokenizer, [text[:2000] for text in documents[:50]])(many)

    assert ours() == peer()
    return "pretraining tokens, MB/s", "datasets.map, batched", ours, peer, megabytes(many)


def make_conversations(documents: list[str]) -> list[dict]:
    """Conversations of one to four questions and answers: the documents' text, cut at lengths between 40 and 600 characters."""
    rng = np.random.default_rng(0)
    text, position, rows = "".join(documents), 0, []
    while position + 4 * (300 + 600) < len(text):
        messages = []
        for role in ("user", "assistant") * int(rng.integers(1, 5)):
            end = position + int(rng.integers(40, 300 if role == "user" else 600))
            messages.append({"role": role, "content": text[position:end].strip() or "Go on."})
            position = end
        rows.append({"messages": messages})
    return rows


def sft_cell(documents: list[str]) -> Cell:
    """Chat rows to ids and labels of the assistant's turns: our preparation of a split against SFTTrainer's."""
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from alignment.data.chat import load_chat
    from alignment.data.encode import EncodeSpec
    from alignment.data.prepare_split import prepare_split
    from alignment.data.sources import Source
    from alignment.models.tokenizer import train_tokenizer
    from alignment.recipe.model_spec import NewTokenizerSpec, SftChatSpec
    from alignment.recipe.schema import RECIPES

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = train_tokenizer(documents, NewTokenizerSpec(algorithm="bpe", vocab_size=16_000), "chatml")
    chat = load_chat(tokenizer, SftChatSpec(template="chatml"), Path())
    rows, table = make_conversations(documents), datasets.Dataset.from_list(make_conversations(documents))
    fields = {
        "stage": "sft",
        "model": {"path": "unused"},
        "data": {"train": [{"path": "rows", "format": "messages"}], "max_length": 4096},
        "train": {"max_steps": 1, "learning_rate": 1e-4},
    }
    recipe = RECIPES["sft"].model_validate(fields)
    source = Source(recipe.data.train[0], None, rows)
    spec = EncodeSpec(max_length=4096, on_too_long="drop", on_bad_row="error", control_tokens="refuse")
    with tempfile.TemporaryDirectory() as folder:
        small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **small))
        config = SFTConfig(folder, assistant_only_loss=True, max_length=4096, use_cpu=True, bf16=False, report_to=[])
        trainer = SFTTrainer(model, config, train_dataset=table.select([0]), processing_class=tokenizer)

    def ours() -> object:
        return prepare_split(chat, [source], recipe, spec, "train").table

    def peer() -> object:
        return trainer._prepare_dataset(table, tokenizer, config, False, None, "train")

    def as_set(prepared: object) -> list:
        columns = (prepared[name] for name in ("input_ids", "labels"))
        return sorted(zip(*((c.to_pylist() if hasattr(c, "to_pylist") else c[:]) for c in columns), strict=True))

    mine, theirs = as_set(ours()), as_set(peer())
    assert mine == theirs
    tokens = sum(len(ids) for ids, _ in mine)
    return "SFT preparation, thousand tokens/s", "trl SFTTrainer", ours, peer, tokens / 1e3


def signatures_cell(documents: list[str]) -> Cell:
    """MinHash sketches of 14 x 8 hashes over 5-grams of words."""
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig

    from alignment.curate.duplicates import Sketcher
    from alignment.curate.words import Words
    from alignment.recipe.curate_spec import NearDedupSpec

    # datatrove 0.10.1 hands text to xxhash, whose version 4 takes bytes only.
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(64, "sha1"))
    step = MinhashDedupSignature(
        output_folder=tempfile.mkdtemp(),
        config=config,
        language=Words(),
    )

    def ours() -> np.ndarray:
        sketcher = Sketcher(NearDedupSpec())
        for text in documents:
            sketcher.add(text)
        return sketcher.result()[0]

    def peer() -> list:
        return [step.get_signature(shingles) for text in documents if len(shingles := step.get_shingles(text))]

    return "near-duplicate sketches, MB/s", "datatrove, our words", ours, peer, megabytes(documents)


def repetition_cell(documents: list[str]) -> Cell:
    """Gopher's repetition filter with the same words; no decision may differ."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherRepetitionFilter

    from alignment.curate.quality import FastRepetition
    from alignment.curate.words import Words

    fast, slow = FastRepetition(language=Words()), GopherRepetitionFilter(language=Words())
    docs = [Document(text, str(number)) for number, text in enumerate(documents)]
    assert [fast.filter(doc) for doc in docs] == [slow.filter(doc) for doc in docs]
    return (
        "repetition filter, MB/s", "datatrove, same words",
        lambda: [fast.filter(doc) for doc in docs], lambda: [slow.filter(doc) for doc in docs], megabytes(documents),
    )  # fmt: skip


def packing_cell(documents: list[str]) -> Cell:
    """Best-fit-decreasing bins of 50,000 lengths; the peer also copies the tokens, as its users must."""
    import pyarrow as pa
    from trl.data_utils import _pack_bfd

    from alignment.data.pack import pack_rows

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.6, 1.0, 50_000).astype(int), 8, 4096)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    table = pa.table({"input_ids": pa.LargeListArray.from_arrays(offsets, np.zeros(offsets[-1], dtype=np.int32))})
    ours, theirs = pack_rows(lengths, 4096), _pack_bfd(table, 4096)
    assert len(ours) == len(theirs)
    return (
        "packing plan, thousand rows/s",
        "trl _pack_bfd",
        lambda: pack_rows(lengths, 4096),
        lambda: _pack_bfd(table, 4096),
        50.0,
    )


def plan_cell(documents: list[str]) -> Cell:
    """A mixture of five sources and ten million rows."""
    import datasets

    from alignment.data.mixer import mix
    from alignment.data.quotas import Sharing
    from alignment.data.sources import Source
    from alignment.recipe.data_spec import TrainSourceSpec

    shares = {
        "a": (5_000_000, 0.4),
        "b": (1_000_000, 0.2),
        "c": (200_000, 0.1),
        "d": (3_000_000, 0.29),
        "e": (50_000, 0.01),
    }
    sources = [
        Source(TrainSourceSpec(path=name, format="text", share=share), None, range(size))
        for name, (size, share) in shares.items()
    ]
    tables = [datasets.Dataset.from_dict({"x": np.arange(200_000)}) for _ in range(2)]
    sharing = Sharing("rows", None, PLAN_ROWS, 6.0)

    def peer() -> object:
        return datasets.interleave_datasets(tables, probabilities=[0.5, 0.5], seed=0)

    # The peer does a twentieth of the rows, or its turn would take as long as all the others.
    return (
        "mixture plan, million rows/s",
        "interleave_datasets",
        lambda: mix(sources, 0, "train", sharing),
        peer,
        PLAN_ROWS / 1e6,
        len(peer()) / 1e6,
    )


def megabytes(documents: list[str]) -> float:
    return sum(len(text.encode()) for text in documents) / 1e6


CELLS = (tokens_cell, sft_cell, signatures_cell, repetition_cell, packing_cell, plan_cell)


def measure(cell: Callable[[list[str]], Cell], documents: list[str], runs: int) -> dict:
    """Median rates of both sides."""
    job, peer, ours, theirs, units, *other = cell(documents)
    peer_units = other[0] if other else units
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for run in range(runs):
        for side, function, size in (("ours", ours, units), ("theirs", theirs, peer_units))[
            :: 1 if run % 2 == 0 else -1
        ]:
            begun = time.process_time()
            function()
            rates[side].append(size / (time.process_time() - begun))
    found = {side: statistics.median(values) for side, values in rates.items()}
    return {"job": job, "peer": peer, **found, "ratio": found["ours"] / found["theirs"]}


def curate_rate(documents: list[str]) -> dict:
    """The whole command on one process: wall seconds, and MB of text a second."""
    from alignment.curate.plan import make_plan
    from alignment.curate.run import curate
    from alignment.recipe.loader import load_recipe

    steps = [
        "normalize",
        "exact_dedup",
        "language",
        "gopher_repetition",
        "gopher_quality",
        "c4",
        "fineweb",
        "near_dedup",
        "pii",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "raw.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        head = "stage: curate\ndata:\n  train:\n    - path: raw.jsonl\n      format: text\ncurate:\n  executor:\n    workers: 1\n  steps:\n"
        (folder / "r.yaml").write_text(head + "".join(f"    - {step}: {{}}\n" for step in steps))
        begun = time.process_time()
        receipt = curate(make_plan(load_recipe(folder / "r.yaml"), folder, folder / "out"))
        seconds = time.process_time() - begun
    return {"rows": receipt["rows_in"], "kept": receipt["rows_kept"], "mb_per_s": megabytes(documents) / seconds}


def main() -> None:
    """Measures every cell and prints or writes the table."""
    # Read when a pool of threads is made, which is later.
    os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    documents = read_documents(arguments.folder)[: arguments.documents]
    lines = [
        "# The data side beside its peers", "",
        f"{time.strftime('%Y-%m-%d')}: {len(documents)} documents, {megabytes(documents):.1f} MB; medians of {arguments.runs} alternating"
        f" runs, CPU seconds of one thread.", "", "| job | ours | peer | ratio | peer is |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for cell in CELLS:
        found = measure(cell, documents, arguments.runs)
        rates = f"{found['ours']:.2f} | {found['theirs']:.2f} | **{found['ratio']:.1f}**"
        lines.append(f"| {found['job']} | {rates} | {found['peer']} |")
        print(lines[-1], flush=True)
    whole = curate_rate(documents)
    lines += [
        "",
        f"`alignment curate` with nine steps, one process: {whole['mb_per_s']:.2f} MB/s; {whole['kept']} of {whole['rows']} rows kept.",
        "",
    ]
    page = "\n".join(lines)
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
