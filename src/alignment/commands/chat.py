"""`alignment chat`: talk to the model of a run, or of the Hub, in the terminal.

Prompts are rendered with the template and ended by the stop ids that the model was saved with.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.data.row_messages import check_values
from alignment.errors import ArtifactError, DataError, RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEAVE = ("/exit", "/quit")
AFRESH = "/new"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN|HUB_ID", help="a run's folder, a model's folder, or a model of the Hub")
    parser.add_argument("--prompt", metavar="TEXT", help="answer this and leave")
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument("--max_new_tokens", metavar="N", type=int, default=256, help="longest answer (default: 256)")
    parser.add_argument("--temperature", metavar="T", type=float, default=0.0, help="0 is greedy (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Answers `--prompt`, or talks until the input ends. Returns the exit code.

    Raises:
        RecipeError: an option that cannot be.
        ArtifactError: the folder has no finished model.
    """
    if args.max_new_tokens < 1:
        raise RecipeError(f"--max_new_tokens: {args.max_new_tokens}; at least 1 was expected.")
    if args.temperature < 0:
        raise RecipeError(f"--temperature: {args.temperature}; at least 0 was expected.")
    try:
        check_values(args.prompt, "--prompt")
        check_values(args.system, "--system")
    except DataError as error:
        raise RecipeError(f"{error}.") from error
    talk = load_conversation(args.model, args.system, args.max_new_tokens, args.temperature)
    if args.prompt is not None:
        print(talk.answer(args.prompt))
        return 0
    print(f"{args.model}. {AFRESH} starts afresh, {LEAVE[0]} leaves.")
    _converse(talk, input)
    return 0


def find_model(target: str) -> str:
    """The folder to load for a run or model folder; anything that is no folder is left to the Hub.

    Raises:
        ArtifactError: the folder has no finished model.
    """
    folder = Path(target)
    if not folder.exists():
        if target.startswith((".", "/", "~", "runs/")) or target.count("/") > 1:
            raise ArtifactError(
                f"{target}: no such folder; a run's folder was expected. Train it first, or correct the path."
            )
        return target
    model = folder / "final" if (folder / "recipe.yaml").exists() or (folder / "final").exists() else folder
    if not any((model / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ArtifactError(
            f"{target}: found no {'finished ' if model != folder else ''}model in {model}; a config.json or adapter_config.json "
            "was expected. An unfinished run goes on with the command that started it."
        )
    return str(model)


@dataclass
class Conversation:
    """A model, its tokenizer and what was said so far."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    system: str | None
    max_new_tokens: int
    temperature: float
    messages: list[dict[str, str]] = field(default_factory=list)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """As saved with the model: one, several or none."""
        saved = self.model.generation_config.eos_token_id
        return tuple(saved) if isinstance(saved, list) else () if saved is None else (saved,)

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens that ask for the next answer; without a template, the last message as text to continue."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer(messages[-1]["content"]).input_ids
        # Sanitised as in training: a special token that a person types is ordinary text.
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return self.tokenizer.apply_chat_template(
            system + messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )

    def answer(self, text: str, *, stream: bool = False) -> str:
        """The model's answer, remembered; `stream` prints it as it grows.

        Raises:
            DataError: the conversation is longer than the model reads; it stays as it was.
        """
        from transformers import TextStreamer

        from alignment.measure.generation import complete

        asked = [*self.messages, {"role": "user", "content": text}]
        said = complete(
            self.model,
            self.tokenizer,
            self.prompt_ids(asked),
            self.stop_ids,
            self.tokenizer.pad_token_id or 0,  # one row has no padding
            self.max_new_tokens,
            temperature=self.temperature,
            streamer=TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None,
        )
        self.messages = [*asked, {"role": "assistant", "content": said.text}]
        return said.text.strip()


def load_conversation(target: str, system: str | None, max_new_tokens: int, temperature: float) -> Conversation:
    """A fresh conversation with the model that `target` names, on the GPU if there is one.

    Raises:
        ArtifactError: nothing can be loaded from there.
        RecipeError: a system message for a model without a chat template, or a model that does not generate.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    path = find_model(target)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        architectures = (
            AutoConfig.from_pretrained(path).architectures if (Path(path) / "config.json").exists() else None
        )
        if any(name.endswith("ForSequenceClassification") for name in architectures or ()):
            raise RecipeError(f"{target}: a reward model, which scores and does not talk; a causal model was expected.")
        model = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{target}: cannot be loaded ({reason}); a run, a model's folder or a Hub id was expected."
        ) from error
    if system is not None and tokenizer.chat_template is None:
        raise RecipeError(f"--system: {target} has no chat template to write it with; leave it out.")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Conversation(model, tokenizer, system, max_new_tokens, temperature)


def _converse(talk: Conversation, ask: Callable[[str], str]) -> None:
    while True:
        try:
            text = ask("> ").strip()
            check_values(text, "what was typed or pasted")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        except (DataError, UnicodeDecodeError) as error:  # which of them depends on the terminal
            print(f"{error}. Type it again without that character.")
            continue
        if text in LEAVE:
            return
        if text == AFRESH:
            talk.messages = []
        elif text:
            _reply(talk, text)


def _reply(talk: Conversation, text: str) -> None:
    try:
        talk.answer(text, stream=True)
    except KeyboardInterrupt:
        print()
    except DataError as error:
        print(f"{error} {AFRESH} starts afresh.")
