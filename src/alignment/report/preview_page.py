"""The preview as an HTML page: the mixture, what was found in the data, and rows token by token."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.report.page import TOKEN_KEY, Section, bullet_list, page, token_view
from alignment.report.parts import encode_table, mixture_table
from alignment.report.redact import redact
from alignment.report.run_files import STAGE_TITLES

if TYPE_CHECKING:  # it imports transformers, which this room does without
    from alignment.data.preview import Preview, PreviewRow, Tokens

MAX_BYTES_OF_ROWS = 200_000
MAX_FINDING_CHARACTERS = 2000
MAX_SHOWN_TOKENS = 2000  # of a row; alignment.data.preview hands over no more


def write_preview_page(preview: "Preview", path: Path) -> Path:
    """Writes the page and returns its path; folders above it are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(make_preview_page(preview), encoding="utf-8")
    return path


def make_preview_page(preview: "Preview") -> str:
    """The page. Rows beyond its size are left out, and their number is said."""
    findings = [redact(finding)[:MAX_FINDING_CHARACTERS] for finding in preview.findings]
    rows = "".join(_draw_rows(preview.rows))
    return page(
        "What will be trained on",
        [
            Section("Findings", bullet_list(findings)),
            Section("Mixture", mixture_table(preview.mixture)),
            Section("Encoding", encode_table(preview.encode)),
            Section("Rows, token by token", TOKEN_KEY + rows if rows else ""),
        ],
        kicker=f"Preview · {STAGE_TITLES.get(preview.stage, preview.stage)}",
        lead="These are the prepared rows themselves, as the trainer will read them.",
    )


def _draw_rows(rows: "tuple[PreviewRow, ...]") -> Iterator[str]:
    used = 0
    for number, row in enumerate(rows):
        drawn = _draw_row(row, MAX_BYTES_OF_ROWS // len(rows))
        used += len(drawn.encode())
        if used > MAX_BYTES_OF_ROWS and number:
            yield f'<p class="muted">{len(rows) - number} more rows: see them in the terminal.</p>'
            return
        yield drawn


def _draw_row(row: "PreviewRow", max_bytes: int) -> str:
    size = f" <small>{row.num_tokens:,} tokens</small>" if row.num_tokens else ""
    drawn, cut = [], False
    for number, document in enumerate(row.documents):
        kept = _fit(document, max_bytes)
        max_bytes -= sum(_size(text) for text, _ in kept)
        border = ' class="document"' if number else ""
        name = f'<p class="key">document {number + 1}</p>' if len(row.documents) > 1 else ""
        drawn.append(f'<div{border}>{name}<div class="tokens">{token_view(kept)}</div></div>')
        if cut := len(kept) < len(document):
            break
    rest = '<p class="key">… the row goes on.</p>' if cut or row.num_tokens > MAX_SHOWN_TOKENS else ""
    return f'<article class="rows"><strong>{escape(row.title)}</strong>{size}{"".join(drawn)}{rest}</article>'


def _fit(document: "Tokens", max_bytes: int) -> "Tokens":
    """The first tokens of a document, as many as fit."""
    for number, (text, _) in enumerate(document):
        max_bytes -= _size(text)
        if max_bytes < 0:
            return document[:number]
    return document


def _size(text: str) -> int:
    return len(escape(text, quote=False).encode()) + len("<b></b>")
