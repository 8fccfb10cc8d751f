"""Tokenizers made on the spot: one byte-level BPE and one SentencePiece-like unigram for every chat template."""

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignment.data.templates import template_bos_eos, template_special_tokens

CORPUS = (
    "What is the capital of France? It is Paris.\n\nYou are a helpful assistant, and the user asks the system.\n"
    "Well,  there are  two spaces; <think> tags, a list:\n\n* one\n* two\n    indented\n"
)
WORDS = (
    "assistant",
    "user",
    "system",
    "model",
    "The",
    "the",
    "▁the",
    "▁is",
    "▁of",
    "Paris",
    "▁Paris",
    "\n",
    "\n\n",
    "▁▁",
    "▁",
)
# bytes_rstrip: special tokens swallow the spaces after them (Phi 3). bytes_split: Llama 3's pre-tokenizer.
# metaspace_legacy: Llama 2's normalizer instead of a pre-tokenizer.
KINDS = (
    "bytes",
    "bytes_rstrip",
    "bytes_split",
    "bytes_prefix",
    "metaspace_first",
    "metaspace_always",
    "metaspace_legacy",
)
LLAMA_3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def make_tokenizer(template: str, kind: str, without: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A fresh tokenizer of `kind` with the special tokens of `template`, less those in `without`."""
    tokens = [token for token in template_special_tokens(template) if token not in without]
    bos, eos = template_bos_eos(template)
    return wrap_tokenizer(kind, tokens, bos=bos, eos=eos)


def wrap_tokenizer(kind: str, tokens: list[str], bos: str | None, eos: str | None) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(
        _byte_level(kind) if kind.startswith("bytes") else _metaspace(kind.removeprefix("metaspace_"))
    )
    rstrip = kind == "bytes_rstrip"  # as Phi 3 has them: the token swallows the spaces after it
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False, rstrip=rstrip) for token in tokens])
    names = {"bos_token": bos, "eos_token": eos, "unk_token": "<unk>" if kind.startswith("metaspace") else None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{key: token for key, token in names.items() if token})


@cache
def _byte_level(kind: str) -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "bytes_prefix")
    if kind == "bytes_split":
        split = pre_tokenizers.Split(Regex(LLAMA_3_SPLIT), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [CORPUS] * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(alphabet), show_progress=False)
    )
    return backend.to_str()


@cache
def _metaspace(prepend_scheme: str) -> str:
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(set(CORPUS.replace(" ", "")) | set(WORDS))]
    backend = Tokenizer(
        models.Unigram([(piece, -1.0 - 1.0 / len(piece)) for piece in pieces], unk_id=0, byte_fallback=True)
    )
    if prepend_scheme == "legacy":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=prepend_scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend.to_str()
