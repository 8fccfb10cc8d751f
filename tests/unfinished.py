"""Runs that end with their last step: for tests of what happens before it."""

import pytest


class _NoVerifier:
    def close(self) -> None:
        """There is no process."""


def leave_out_the_end(patch: pytest.MonkeyPatch | None = None) -> None:
    """Nothing is written and read back by a fresh process, which takes ten times as long as a few steps; exit code 0 all the same.

    Without `patch` for good, which is meant for a forked process.
    """
    from alignment.train import finish

    patch = patch or pytest.MonkeyPatch()
    patch.setattr(finish, "Verifier", _NoVerifier)
    patch.setattr(finish, "write_result", lambda *_: None)
