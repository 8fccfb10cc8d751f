"""presidio's pattern recognisers on texts, as a program of its own for a Python that has presidio-analyzer.

Reads {"texts": [...], "entities": [...]} on stdin, writes {"spans": [[[entity, start, end, score], ...], ...], "seconds": ...}.
Its spaCy models come from no package index, so words are those of a blank English model and stand for their lemmas: names and
places are not found, while patterns, checksums and context words work as in its AnalyzerEngine.
"""

import json
import sys
import time

import spacy
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine


class BlankEngine(NlpEngine):
    """Tokens and nothing else."""

    def __init__(self) -> None:
        self.engine, self.nlp = self, spacy.blank("en")

    def load(self) -> None:
        return

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        doc = self.nlp(text)
        return NlpArtifacts(
            [], doc, [token.idx for token in doc], [token.text.lower() for token in doc], self, language
        )

    def process_batch(self, texts, language, **_):
        return ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word: str, language: str) -> bool:
        return self.nlp.vocab[word].is_stop

    def is_punct(self, word: str, language: str) -> bool:
        return self.nlp.vocab[word].is_punct

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return ["en"]


def main() -> None:
    """Analyses what stands on stdin."""
    asked = json.load(sys.stdin)
    analyzer = AnalyzerEngine(nlp_engine=BlankEngine(), supported_languages=["en"])
    begun = time.process_time()
    found = [analyzer.analyze(text, language="en", entities=asked["entities"]) for text in asked["texts"]]
    seconds = time.process_time() - begun
    spans = [[[one.entity_type, one.start, one.end, one.score] for one in results] for results in found]
    json.dump({"spans": spans, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
