"""`--check`: is what lies in a folder still what a manifest promises? Every byte is read. Used by `command` and `manifest_command`."""

from pathlib import Path

from inference_cache_artifacts.errors import BadRequest, Corrupt
from inference_cache_artifacts.making import Difference, differences
from inference_cache_artifacts.manifest import FILE_NAME
from inference_cache_artifacts.manifest_files import load_manifest
from inference_cache_artifacts.progress import Outcome, Progress
from inference_cache_artifacts.store.layout import FILES, MARKER


def checked(folder: Path, manifest: Path | None, progress: Progress) -> Outcome:
    """Raises Corrupt, which names what differs, and as `differences` and `load_manifest` do."""
    differing = differences(load_manifest(manifest or manifest_for(folder)), folder, progress)
    if differing:
        raise Corrupt(told(differing), differing[0].path)
    return Outcome(path=str(folder))


def manifest_for(folder: Path) -> Path:
    """The tree's own, where the folder is one of a store; else the one that lies in it. Raises BadRequest."""
    if not folder.is_dir():
        raise BadRequest(f"{folder} is no folder")
    files = folder.resolve()
    marker = files.parent / MARKER
    found = marker if files.name == FILES and marker.is_file() else files / FILE_NAME
    if not found.is_file():
        raise BadRequest(f"{folder} has no manifest to compare it with; name one with --manifest")
    return found


def told(differing: list[Difference]) -> str:
    """A line for each; on one line where it is only one."""
    lines = [f"{each.path}: {each.what}" for each in differing]
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} files differ", *lines])
