"""A chat template that did not come with this package is first run where it can do no harm.

The sandbox of jinja stops a template from reaching Python, and not from looping for ever or asking for all memory (jinja2 3.1:
nested ranges hang, `'x' * 10**9` takes a gigabyte). So it first writes a few conversations in a child process with little
time and memory, and is refused when it needs more. What it writes is judged elsewhere.
"""

import multiprocessing
import resource
from collections.abc import Sequence
from pathlib import Path

from alignment.errors import DataError

MAX_SECONDS = 2.0
MAX_BYTES = 512 * 2**20


def check_template_limits(
    name: str, template: str, conversations: Sequence[list[dict]], special: dict[str, str]
) -> None:
    """Raises DataError when the template needs more than MAX_SECONDS or MAX_BYTES for the conversations.

    Args:
        special: names and texts of special tokens, as the tokenizer hands them to its template.
    """
    # Forked, because the child needs nothing but jinja, which is loaded; a new interpreter would take seconds.
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_render_all, args=(sender, template, conversations, special), daemon=True)
    child.start()
    sender.close()
    try:
        said = receiver.recv() if receiver.poll(MAX_SECONDS) else f"more than {MAX_SECONDS:g} s"
    except EOFError:  # killed: the limit of memory met C code
        said = f"more than {MAX_BYTES >> 20} MiB"
    finally:
        child.kill()
        child.join()
        receiver.close()
    if said:
        raise DataError(
            f"chat.template: {name} needs {said} for one short conversation; {MAX_SECONDS:g} s and {MAX_BYTES >> 20} MiB were"
            " expected to do. Read the template before you use it; it may be an attack."
        )


def _render_all(sender, template: str, conversations: Sequence[list[dict]], special: dict[str, str]) -> None:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))
    said = ""
    for messages in conversations:
        try:
            render_jinja_template([messages], chat_template=template, **special)
        except MemoryError:
            said = f"more than {MAX_BYTES >> 20} MiB"
            break
        except (TemplateError, TypeError, ValueError, OverflowError):
            continue  # a template that refuses messages is judged by check_template
    sender.send(said)
