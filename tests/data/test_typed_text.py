"""Text that comes from a terminal, where it need not be UTF-8. Talking itself is tested in tests/measure."""

import argparse

import pytest

from alignment.commands import chat
from alignment.errors import RecipeError

HALF = "a\udcffb"  # what Python makes of the byte 0xff


@pytest.mark.parametrize("option", ["--prompt", "--system"])
def test_an_option_that_is_not_utf8_is_refused_before_a_model_is_loaded(option: str) -> None:
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    with pytest.raises(RecipeError, match=rf"{option}: found U\+DCFF, half of a surrogate pair, at character 2"):
        chat.run(parser.parse_args(["no-model", option, HALF]))


def test_a_line_that_is_not_utf8_is_asked_again(capsys: pytest.CaptureFixture) -> None:
    lines = iter([HALF, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "/exit"])

    def ask(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, Exception):
            raise line
        return line

    chat._converse(chat.Conversation(None, None, None, 1, 0.0), ask)
    said = capsys.readouterr().out.splitlines()
    assert [line.endswith("Type it again without that character.") for line in said] == [True, True]
