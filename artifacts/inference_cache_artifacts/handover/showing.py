"""How far the agent's fetch is, told to the command's own Progress. Called by `asking` and `delivering`."""

from collections.abc import Mapping

from inference_cache_artifacts.progress import Outcome, Progress


class Followed:
    """A Progress for a fetch that goes on elsewhere, and perhaps for one after it that goes on here."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._received = 0
        self._files = 0
        """Told as verified, of a fetch elsewhere; they are verified once more when they come here."""

    def begin(self) -> None:
        """Another fetch elsewhere, which counts from 0."""
        self._received = 0

    def show(self, fields: Mapping[str, int | None]) -> None:
        """`fields` as `counting.Snapshot.fields` gives them; what it does not know yet is passed over."""
        count = {name: value or 0 for name, value in fields.items()}
        if not count.get("totalFiles"):
            return
        received, files = count.get("receivedBytes", 0), count.get("files", 0)
        self._progress.received(max(0, received - self._received))
        self._progress.planned(count["totalFiles"], count.get("totalBytes", 0), count.get("bytes", 0))
        for _ in range(files - self._files):
            self._progress.verified("", 0)
        self._received, self._files = received, max(files, self._files)

    def planned(self, files: int, total_bytes: int, already_bytes: int) -> None:
        self._progress.planned(files, total_bytes, already_bytes)

    def received(self, count: int) -> None:
        self._progress.received(count)

    def verified(self, path: str, size: int) -> None:
        if self._files:
            self._files -= 1
            return
        self._progress.verified(path, size)

    def noted(self, event: str, **fields: object) -> None:
        self._progress.noted(event, **fields)

    def ended(self, outcome: Outcome) -> None:
        self._progress.ended(outcome)
