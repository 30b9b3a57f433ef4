"""`inference-cache manifest`: writes a manifest of a folder or a bucket, or compares one with a folder. Called by the console script."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from inference_cache_artifacts.checking import checked
from inference_cache_artifacts.counting import Counted
from inference_cache_artifacts.credentials import read_credentials
from inference_cache_artifacts.displays import displays
from inference_cache_artifacts.ending import Ended, endings, tell
from inference_cache_artifacts.flags import MANIFEST, manifest_parser
from inference_cache_artifacts.interrupting import interruptible
from inference_cache_artifacts.making import manifest_of_folder
from inference_cache_artifacts.making_remote import Reader
from inference_cache_artifacts.manifest import FILE_NAME, Manifest
from inference_cache_artifacts.progress import Outcome, Progress
from inference_cache_artifacts.source import Source
from inference_cache_artifacts.sources.opening import open_source
from inference_cache_artifacts.sources.options import SourceOptions
from inference_cache_artifacts.store import disk

Open = Callable[[str, SourceOptions], Source]
STDOUT: Final = "-"


def main(arguments: Sequence[str] | None = None, opened: Open = open_source) -> int:
    """Make the manifest, or compare; the exit status."""
    made = manifest_parser()
    asked = made.parse_args(arguments)
    is_url = "://" in asked.what
    if is_url and asked.check is not None:
        made.error("--check compares a folder; `inference-cache fetch` verifies what a URL has")
    if asked.json and asked.output == STDOUT:
        made.error("--json and --output - both write to stdout")
    with Counted(displays(MANIFEST, quiet=asked.quiet, as_json=asked.json, status_file=asked.progress_file)) as progress:
        try:
            with endings(), interruptible():
                outcome = _done(asked, opened, progress)
        except Ended as ended:
            progress.ended(ended.outcome)
            tell(MANIFEST, ended.outcome)
            return ended.status
        progress.ended(outcome)
    if outcome.sha256 and not asked.json:
        (sys.stderr if asked.output == STDOUT else sys.stdout).write(f"{outcome.sha256}  {outcome.path or STDOUT}\n")
    return 0


def _done(asked: argparse.Namespace, opened: Open, progress: Progress) -> Outcome:
    if asked.check is not None:
        return checked(Path(asked.what), asked.check, progress)
    output = _output(asked)
    manifest = _of_url(asked, opened, progress) if "://" in asked.what else manifest_of_folder(Path(asked.what), progress, output)
    _write(output, manifest)
    return Outcome(path="" if output is None else str(output), sha256=manifest.digest)


def _output(asked: argparse.Namespace) -> Path | None:
    """None: stdout."""
    if asked.output is not None:
        return None if asked.output == STDOUT else Path(asked.output)
    return Path(FILE_NAME) if "://" in asked.what else Path(asked.what) / FILE_NAME


def _of_url(asked: argparse.Namespace, opened: Open, progress: Progress) -> Manifest:
    credentials = {} if asked.credentials_dir is None else read_credentials(asked.credentials_dir)
    options = SourceOptions(credentials, ca_file=None if asked.ca_file is None else str(asked.ca_file), plain_http=asked.plain_http)
    with closing(opened(asked.what, options)) as source:
        return Reader(source, progress).manifest()


def _write(output: Path | None, manifest: Manifest) -> None:
    """Whole, or not at all. Raises DiskFailed, NoSpace."""
    if output is None:
        sys.stdout.write(manifest.text())
        return
    with disk.disk_errors(output):
        disk.replace(output, manifest.text().encode())
