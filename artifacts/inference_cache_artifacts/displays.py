"""Who sees how far it is: a person at a terminal, a log, a program that reads lines or a file. Used by `counting.Counted`."""

import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from inference_cache_artifacts.counting import Display, Snapshot
from inference_cache_artifacts.progress import Outcome
from inference_cache_artifacts.quantities import show_bytes, show_seconds

if TYPE_CHECKING:
    from tqdm import tqdm


_NOTES: Final = 5


def line(now: Snapshot) -> str:
    """How far it is, for people."""
    percent = 100 * now.bytes // now.total_bytes if now.total_bytes else 100
    amount = f"{show_bytes(now.bytes)} of {show_bytes(now.total_bytes)}, {now.files} of {now.total_files} files"
    return f"{percent} %, {amount}, {show_bytes(now.bytes_per_second)}/s, {show_seconds(now.eta_seconds)} left"


def summary(now: Snapshot) -> str:
    """What came of it, for people."""
    what = f"{now.total_files} files, {show_bytes(now.total_bytes)}"
    if not now.received_bytes:
        return f"{what}; nothing had to be read"
    return f"{what}; read {show_bytes(now.received_bytes)} at {show_bytes(now.bytes_per_second)}/s"


class Notes:
    """Of each kind the first few, and then ever fewer: a source in trouble must not fill the log."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()

    def line(self, event: str, fields: dict[str, object]) -> str | None:
        """For people; None where enough has been said."""
        self._told[event] += 1
        count = self._told[event]
        text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
        if count <= _NOTES:
            return text
        return f"{text} ({count} times so far)" if _is_round(count) else None


def _is_round(count: int) -> bool:
    return not str(count)[1:].strip("0")


def _last_line(now: Snapshot, outcome: Outcome) -> str:
    what = summary(now) if now.total_files else "already there"
    return f"{outcome.path}: {what}" if outcome.path else what


@dataclass(slots=True)
class Lines:
    """For a log: a line every ten seconds, and one at the end if it ended well (of a failure its command tells)."""

    program: str
    stream: TextIO
    every_seconds: float = 10.0
    notes: Notes = field(default_factory=Notes)

    def show(self, now: Snapshot) -> None:
        self._write(line(now))

    def note(self, event: str, fields: dict[str, object]) -> None:
        text = self.notes.line(event, fields)
        if text is not None:
            self._write(text)

    def end(self, now: Snapshot, outcome: Outcome) -> None:
        if outcome.is_well:
            self._write(_last_line(now, outcome))

    def _write(self, text: str) -> None:
        self.stream.write(f"{self.program}: {text}\n")
        self.stream.flush()


class Bar:
    """For a person at a terminal. tqdm is loaded with the first bar: what is already there needs none."""

    every_seconds = 0.5

    def __init__(self, program: str, stream: TextIO) -> None:
        self._lines = Lines(program, stream)
        self._stream = stream
        self._bar: tqdm[Any] | None = None

    def show(self, now: Snapshot) -> None:
        bar = self._bar or self._begun(now)
        bar.total = now.total_bytes
        bar.set_postfix_str(f"{now.files}/{now.total_files} files, {show_bytes(now.bytes_per_second)}/s", refresh=False)
        bar.n = now.bytes
        bar.refresh()

    def note(self, event: str, fields: dict[str, object]) -> None:
        if self._bar is None:
            self._lines.note(event, fields)
        elif (text := self._lines.notes.line(event, fields)) is not None:
            self._bar.write(text, file=self._stream)

    def end(self, now: Snapshot, outcome: Outcome) -> None:
        if self._bar is not None:
            self.show(now)
            self._bar.close()
        self._lines.end(now, outcome)

    def _begun(self, now: Snapshot) -> "tqdm[Any]":
        from tqdm import tqdm  # noqa: PLC0415 - see the class

        layout = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
        self._bar = tqdm(
            total=now.total_bytes,
            initial=now.bytes,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            file=self._stream,
            bar_format=layout,
            dynamic_ncols=True,
        )
        return self._bar


@dataclass(slots=True)
class JsonLines:
    """For a program: one object a line; the last is `done` or `failed`."""

    stream: TextIO
    every_seconds: float = 1.0

    def show(self, now: Snapshot) -> None:
        self._write({"event": "progress"} | now.fields())

    def note(self, event: str, fields: dict[str, object]) -> None:
        self._write(fields | {"event": event})

    def end(self, now: Snapshot, outcome: Outcome) -> None:
        self._write(now.fields() | ending(outcome))

    def _write(self, document: dict[str, Any]) -> None:
        self.stream.write(json.dumps(document, default=str) + "\n")
        self.stream.flush()


def ending(outcome: Outcome) -> dict[str, Any]:
    """The end, as JSON."""
    if outcome.is_well:
        told = {"tree": outcome.tree, "path": outcome.path, "sha256": outcome.sha256}
        return {"event": "done"} | {name: value for name, value in told.items() if value}
    return {"event": "failed"} | failure(outcome)


def failure(outcome: Outcome) -> dict[str, Any]:
    return {"reason": outcome.reason, "file": outcome.file, "message": outcome.message}


@dataclass(slots=True)
class StatusFile:
    """For whoever looks: a JSON file that is whole at any time. That it cannot be written is no reason to fetch nothing."""

    path: Path
    every_seconds: float = 1.0

    def show(self, now: Snapshot) -> None:
        self._replace({"event": "progress"} | now.fields())

    def note(self, event: str, fields: dict[str, object]) -> None:
        """Only how far it is stands in the file."""

    def end(self, now: Snapshot, outcome: Outcome) -> None:
        self._replace(now.fields() | ending(outcome))

    def _replace(self, document: dict[str, Any]) -> None:
        beside = self.path.with_name(f".{self.path.name}.new")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(document) + "\n")
            beside.replace(self.path)


def displays(program: str, *, quiet: bool, as_json: bool, status_file: Path | None) -> list[Display]:
    """As a command's flags ask: JSON goes to stdout, all that people read to stderr."""
    shown: list[Display] = [] if status_file is None else [StatusFile(status_file)]
    if as_json:
        shown.append(JsonLines(sys.stdout))
    elif not quiet:
        shown.append(Bar(program, sys.stderr) if sys.stderr.isatty() else Lines(program, sys.stderr))
    return shown
