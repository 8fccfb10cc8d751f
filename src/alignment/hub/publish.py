"""From a staged folder to the Hub: sent, compared file by file, and only then tagged.

huggingface_hub 2.4 does not promise that an upload that returned is whole, nor that one that failed is not there: a commit whose reply
was lost may have been made, and is made twice by a retry. So nothing is believed but the list of files that the Hub itself gives, and
everything may be done again.

A server of your own (HF_ENDPOINT) without a Xet store needs HF_HUB_DISABLE_XET=1.
"""

import hashlib
import logging
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

from alignment.errors import PublishError, RecipeError
from alignment.hub.staging import ALLOWED, EVAL_RESULTS, LINEAGE, Staged, check_verified, stage_run

logger = logging.getLogger(__name__)
MAIN = "main"
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 2.0
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_BUSY = (408, 409, 412, 429, 500, 502, 503, 504)  # worth another attempt
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Published:
    """What is on the Hub now."""

    url: str
    commit: str
    tag: str
    num_files: int
    num_bytes: int
    is_new: bool  # False: everything was there already
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Digest:
    size: int
    sha256: str
    git: str  # as git names a blob


def publish_run(
    run_dir: Path,
    hub_id: str,
    *,
    public: bool = False,
    revision: str | None = None,
    api: HfApi | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Published:
    """Publishes final/ of a verified run with its card, recipe and receipt.

    Args:
        hub_id: `ORG/NAME`, made private unless `public`.
        revision: a branch, made where it is not there; default: main.
        pause: waits between two attempts.

    Raises:
        RecipeError: `hub_id` is no name of a repository.
        ArtifactError: the run is not finished, or its weights are not those that were verified.
        PublishError: nothing private may be sent, or the Hub has not got everything. Doing it again goes on.
    """
    if not _REPO.fullmatch(hub_id):
        raise RecipeError(f"{hub_id}: ORG/NAME was expected, of letters, digits, '-', '_' and '.'. Correct it.")
    run = check_verified(Path(run_dir))
    api = api or HfApi()
    with tempfile.TemporaryDirectory(dir=run.folder, prefix=".push-") as folder:
        staged = stage_run(run, hub_id, Path(folder))
        digests = {name: _digest(staged.folder / name) for name in staged.files}
        try:
            return _publish(api, hub_id, public, revision or MAIN, staged, digests, pause)
        except OfflineModeIsEnabled as error:
            raise PublishError(f"{hub_id}: HF_HUB_OFFLINE is set; the Hub is needed to publish. Unset it.") from error
        except LocalTokenNotFoundError as error:
            raise PublishError(
                f"{hub_id}: no token; one that may write was expected. Run `hf auth login`, or set HF_TOKEN."
            ) from error
        except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
            raise PublishError(f"{hub_id}: {_say(error)}; the model is safe in {run.folder / 'final'}.") from error


def _publish(
    api: HfApi,
    hub_id: str,
    public: bool,
    revision: str,
    staged: Staged,
    digests: Mapping[str, _Digest],
    pause: Callable[[float], None],
) -> Published:
    _retry(lambda: _open_repository(api, hub_id, public, revision), pause)
    differing = _retry(lambda: _compare(api, hub_id, revision, digests), pause)
    is_new = bool(differing)
    for attempt in range(1, ATTEMPTS + 1):
        if not differing:
            break
        try:
            api.upload_folder(
                repo_id=hub_id,
                folder_path=staged.folder,
                revision=revision,
                commit_message=f"Result of {staged.folder.parent.parent.name}/{staged.folder.parent.name}",
                delete_patterns=_stale(differing) or None,
            )
        except (HfHubHTTPError, httpx2.HTTPError) as error:
            _wait(error, attempt, pause)
        differing = _retry(lambda: _compare(api, hub_id, revision, digests), pause)
    if differing:
        shown = ", ".join(f"{name} ({why})" for name, why in list(differing.items())[:5])
        raise PublishError(f"{hub_id}: the Hub has not got what was sent: {shown}. Nothing was tagged.")
    commit = _retry(lambda: api.repo_info(hub_id, revision=revision), pause).sha
    tag = make_tag(digests)
    _retry(lambda: api.create_tag(hub_id, tag=tag, revision=commit, exist_ok=True), pause)
    size = sum(digest.size for digest in digests.values())
    return Published(f"{api.endpoint}/{hub_id}", commit, tag, len(digests), size, is_new, staged.left_out)


def _open_repository(api: HfApi, hub_id: str, public: bool, revision: str) -> None:
    """Makes repository and branch where they are not there. A public one is not written to unless that is asked for."""
    api.create_repo(hub_id, private=not public, exist_ok=True)
    if not public and not api.repo_info(hub_id).private:
        raise PublishError(
            f"{hub_id}: the repository is public; a private one was expected. Give --public, or another name."
        )
    if revision != MAIN:
        api.create_branch(hub_id, branch=revision, exist_ok=True)


def make_tag(digests: Mapping[str, _Digest]) -> str:
    """A tag that says what is tagged, so that publishing the same again names the same."""
    text = "\n".join(f"{name} {digests[name].sha256}" for name in sorted(digests))
    return f"v-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


# ------------------------------------------------------------------------------------------------ comparing


def _compare(api: HfApi, hub_id: str, revision: str, digests: Mapping[str, _Digest]) -> dict[str, str]:
    """Files that the Hub has not got as they are here, and files of an earlier result that are still there; with what is wrong."""
    there = {
        entry.path: entry
        for entry in api.list_repo_tree(hub_id, recursive=True, revision=revision)
        if isinstance(entry, RepoFile)
    }
    wrong = {}
    for name, digest in digests.items():
        entry = there.get(name)
        if entry is None:
            wrong[name] = "absent"
        elif entry.size != digest.size:
            wrong[name] = f"{entry.size} bytes instead of {digest.size}"
        elif (entry.lfs.sha256 != digest.sha256) if entry.lfs else (entry.blob_id != digest.git):
            wrong[name] = "other content"
    return wrong | {name: "of an earlier result" for name in there if name not in digests and _is_ours(name)}


def _is_ours(name: str) -> bool:
    """Whether a file is one that this project writes; anything else there is somebody's own, and stays."""
    return name.startswith((f"{EVAL_RESULTS}/", f"{LINEAGE}/")) or any(fnmatch(name, pattern) for pattern in ALLOWED)


def _stale(differing: Mapping[str, str]) -> list[str]:
    return [name for name, why in differing.items() if why == "of an earlier result"]


def _digest(path: Path) -> _Digest:
    size = path.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            git.update(chunk)
    return _Digest(size, sha256.hexdigest(), git.hexdigest())


# ------------------------------------------------------------------------------------------------ trying again


def _retry(call: Callable, pause: Callable[[float], None]):
    """What `call` returns, after as many attempts as it takes; the last error is raised."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except (HfHubHTTPError, httpx2.HTTPError) as error:
            if attempt == ATTEMPTS:
                raise
            _wait(error, attempt, pause)
    raise AssertionError("unreachable")


def _wait(error: Exception, attempt: int, pause: Callable[[float], None]) -> None:
    """Waits before the next attempt, as long as the Hub asks for; raises an error that waiting does not mend."""
    response = error.response if isinstance(error, HfHubHTTPError) else None
    if response is not None and response.status_code not in _BUSY:
        raise error
    seconds = FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    seconds = max(seconds, float(asked)) if asked.isdigit() else seconds
    logger.info("%s; attempt %d of %d in %g s", _say(error), attempt + 1, ATTEMPTS, seconds)
    pause(seconds)


def _say(error: Exception) -> str:
    """One line, without the token that a header might show."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
