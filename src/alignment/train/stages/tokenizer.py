"""The tokenizer stage: texts to a tokenizer with its chat template, read back by a fresh object."""

import time

from alignment.data.chat import load_chat
from alignment.data.prepare import hash_tokenizer, load_prepared
from alignment.errors import ArtifactError
from alignment.models.tokenizer import load_tokenizer, train_tokenizer
from alignment.recipe.resolved import recipe_hash
from alignment.recipe.schema import TokenizerRecipe
from alignment.report.card import write_card
from alignment.report.parents import describe_parents
from alignment.report.receipt import make_receipt, write_receipt
from alignment.report.run_report import write_report
from alignment.train.context import StageContext

NUM_CHECKED = 1000


def run(recipe: TokenizerRecipe, context: StageContext) -> None:
    """Trains, saves and verifies. Rank 0 works; other ranks have nothing to do.

    Raises:
        DataError: too little text for so large a vocabulary, or a template that the tokenizer cannot hold.
        ArtifactError: what was saved gives other ids, or does not give a text back.
    """
    if context.rank != 0:
        return
    begun = time.perf_counter()
    prepared = load_prepared(context.prepared_folder)
    texts = prepared.train["text"]
    tokenizer = train_tokenizer(iter(texts), recipe.tokenizer, recipe.chat.template)
    chat = load_chat(tokenizer, recipe.chat, context.recipe_path.parent)
    folder = context.run_dir / "final"
    tokenizer.save_pretrained(str(folder))
    trained = time.perf_counter()
    sample = texts[:NUM_CHECKED]
    metrics = check_reload(tokenizer, load_tokenizer(folder), sample)
    receipt = make_receipt(
        stage=recipe.stage,
        recipe_hash=recipe_hash(recipe),
        recipe_dir=context.recipe_path.parent,
        seed=recipe.seed,
        command=context.command,
        prepared_manifest_hash=prepared.key[:16],
        template_hash=chat.template_hash,
        metrics=metrics | {"vocab_size": len(tokenizer)},
        parents=describe_parents(recipe),
        weights_hash=hash_tokenizer(tokenizer),
        seconds={
            "prepare": round(context.prepare_seconds, 2),
            "train": round(trained - begun, 2),
            "verify": round(time.perf_counter() - trained, 2),
            "total": round(context.prepare_seconds + time.perf_counter() - begun, 2),
        },
    )
    write_receipt(context.run_dir, receipt)
    write_card(context.run_dir)
    write_report(context.run_dir)


def check_reload(tokenizer, reloaded, texts: list[str]) -> dict[str, float]:
    """Bytes a token, and the share of texts that come back from their ids exactly.

    Raises:
        ArtifactError: the reloaded tokenizer gives other ids, or one text in a hundred does not come back.
    """
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    if reloaded(texts, add_special_tokens=False).input_ids != ids:
        raise ArtifactError("final/: the saved tokenizer gives other ids than the trained one; the same were expected.")
    decoded = [reloaded.decode(row, skip_special_tokens=False, clean_up_tokenization_spaces=False) for row in ids]
    same = sum(text == back for text, back in zip(texts, decoded, strict=True)) / len(texts)
    if same < 0.99:
        raise ArtifactError(f"final/: {same:.1%} of the texts come back from their ids; at least 99% were expected.")
    num_bytes, num_tokens = sum(len(text.encode()) for text in texts), sum(map(len, ids))
    return {"bytes_per_token": num_bytes / num_tokens, "round_trip": same}
