"""`python -m alignment.models.verify`: a fresh process that loads a result as a stranger would, and scores the fixed prompts.

It reads a JSON list from standard input, one object a folder: `folder`, `kind` (causal or reward), `vocab_size`, `max_positions`, and
for an adapter `base` and `revision`. It writes a list to standard output: for each the probe of what it loaded and the dtype,
or `error`, which is then the last. The loading is the lines that the model card gives, and nothing of this project but the prompts.
"""

import gc
import json
import sys
from typing import Any


def load_plainly(request: dict[str, Any]) -> Any:
    """The model in `folder`, by the lines of the card (report/card.py: loading_lines)."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    auto = AutoModelForSequenceClassification if request["kind"] == "reward" else AutoModelForCausalLM
    AutoTokenizer.from_pretrained(request["folder"])
    if request.get("base") is None:
        return auto.from_pretrained(request["folder"])
    from peft import PeftModel

    labels = {"num_labels": 1} if request["kind"] == "reward" else {}
    base = auto.from_pretrained(request["base"], revision=request.get("revision"), **labels)
    return PeftModel.from_pretrained(base, request["folder"])


def main() -> None:
    """Imports while the asking process is still at work, then waits for its request."""
    gc.disable()  # collecting is a fifth of the imports' time
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer  # noqa: F401

    from alignment.models.probe import make_prompts, probe

    gc.freeze()  # else the first collection would look through all of them
    gc.enable()
    answers: list[dict[str, Any]] = []
    for request in json.loads(sys.stdin.readline()):
        try:
            model = load_plainly(request).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            answers.append({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"})
            break
        prompts = make_prompts(request["vocab_size"], request["max_positions"])
        answers.append({"probe": probe(model, prompts), "dtype": str(model.dtype).removeprefix("torch.")})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
