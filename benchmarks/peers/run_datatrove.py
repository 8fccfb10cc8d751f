"""datatrove's own blocks from raw rows to clean ones, as a program of its own for a Python that has datatrove[processing] and spaCy.

    PYTHON run_datatrove.py FOLDER

FOLDER/raw holds .jsonl files; prints CPU seconds, rows kept and the speed of signatures. Filters, MinHash and their words are the defaults, but for
C4's rules about the ends of lines and curly brackets, which both sides leave out, and sha1 for xxhash, whose version 4 it cannot call.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger


def main(folder: Path) -> None:
    """Runs the five pipelines one after the other in this process."""
    logger.remove()
    config = MinhashConfig()
    filtered, work = str(folder / "filtered"), folder / "minhash"
    tasks = len(list((folder / "raw").glob("*.jsonl")))
    pipelines = [
        (
            [
                JsonlReader(str(folder / "raw")),
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                C4QualityFilter(filter_no_terminal_punct=False, filter_curly_bracket=False),
                FineWebQualityFilter(),
                PIIFormatter(),
                JsonlWriter(filtered, compression=None),
            ],
            tasks,
        ),
        ([JsonlReader(filtered), MinhashDedupSignature(str(work / "signatures"), config=config)], tasks),
        ([MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)], config.num_buckets),
        ([MinhashDedupCluster(str(work / "buckets"), str(work / "removed"), config=config)], 1),
        (
            [
                JsonlReader(filtered),
                MinhashDedupFilter(str(work / "removed")),
                JsonlWriter(str(folder / "final"), compression=None),
            ],
            tasks,
        ),
    ]
    seconds = []
    for number, (pipeline, count) in enumerate(pipelines):
        begun = time.process_time()
        LocalPipelineExecutor(pipeline, tasks=count, workers=1, logging_dir=str(folder / f"logs{number}")).run()
        seconds.append(time.process_time() - begun)
    rows = (json.loads(line) for file in Path(filtered).glob("*.jsonl") for line in file.open())
    signed = sum(len(row["text"].encode()) for row in rows) / 1e6
    kept = sum(1 for file in (folder / "final").glob("*.jsonl") for _ in file.open())
    print(json.dumps({"seconds": sum(seconds), "kept": kept, "signatures_mb_per_s": signed / seconds[1]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
