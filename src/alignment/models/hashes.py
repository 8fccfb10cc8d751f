"""Hashes of weights: what a folder's name cannot say."""

from pathlib import Path

import xxhash

_CHUNK_BYTES = 1 << 24


def hash_weights(folder: Path) -> str | None:
    """xxh3 over the safetensors files of a model or adapter folder, in hexadecimal; None when there are none.

    File names count, so a sharded model and a whole one differ.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        return None
    digest = xxhash.xxh3_128()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
