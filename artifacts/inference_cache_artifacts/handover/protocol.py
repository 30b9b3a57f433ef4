"""What pods and the agent of their node say to each other, written once. Pure.

A pod asks for a tree. The agent runs the fetch and keeps the files; whatever it wants to read of a source it asks the pod for, as a job,
so that credentials stay with the pod. All requests but those for health and progress carry a token for `AUDIENCE`, which says which
namespace asks: each has trees of its own, and no other's.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from inference_cache_artifacts.errors import BadRequest
from inference_cache_artifacts.manifest import Manifest, read_manifest
from inference_cache_artifacts.source import Algorithm, Checksum, Remote

AUDIENCE: Final = "inference-cache-agent"
PORT: Final = 9182
HEALTH: Final = "/healthz"
PROGRESS: Final = "/v1/progress/{namespace}/{tree}"
"""GET, without a token: a `Standing`; nobody guesses the name of a tree."""
TREE: Final = "/v1/trees/{tree}"
"""GET: a `Summary`, or 404."""
MANIFEST: Final = "/v1/trees/{tree}/manifest"
"""GET: as `manifest.read_manifest` reads it."""
FILE: Final = "/v1/trees/{tree}/files/{path}"
"""GET and HEAD, with Range, If-Match and If-Range; the ETag is strong."""
FETCHES: Final = "/v1/fetches"
"""POST an `Ask`: 200 and a `Summary` where the tree is there, else 201 and `{"fetch": id}`."""
FETCH: Final = "/v1/fetches/{fetch}"
"""GET: a `Standing`. DELETE: the pod goes away."""
JOB: Final = "/v1/fetches/{fetch}/job"
"""GET, answered within `JOB_SECONDS`: 200 and a `Job`, 204 where there is none, 410 where the fetch has ended."""
RESULT: Final = "/v1/fetches/{fetch}/jobs/{number}"
"""PUT what the job asked for: 204; 410 where nobody waits for it any more."""
FAILURE_HEADER: Final = "Inference-Cache-Failure"
"""Of a PUT: the job failed; the value is the class of `errors`, the body a `Failure`. Every answer from 400 on has such a body too."""
ABANDONED: Final = "Abandoned"
"""The reason of a fetch that ended since the pod was not heard of: it may ask again."""
JOB_SECONDS: Final = 20.0
VOLUME: Final = "inference-cache-artifacts"
"""Of a pod: a store, of which its containers mount trees, each as `sub_path` says."""
_SUB_PATH: Final = re.compile(r"trees/(?P<tree>[0-9a-f]{32})/files")
MOST_PARTS: Final = 1_000_000
"""Of a document: each takes many times its length in memory. 100,000 files with all that is told of them have 700,000."""
MOST_REMOTES: Final = 150_000
What = Literal["listing", "head", "read", "open"]
State = Literal["running", "done", "failed"]
_WHATS: Final[Mapping[str, What]] = {each: each for each in get_args(What)}
_STATES: Final[Mapping[str, State]] = {each: each for each in get_args(State)}


@dataclass(frozen=True, slots=True)
class Ask:
    """A `request.Request`, less what is the pod's own: how sources are reached."""

    sources: tuple[str, ...]
    """URLs, without user, password and signature."""
    tree: str
    version: str = ""
    manifest: Manifest | None = None
    manifest_sha256: str = ""
    verify: bool = True
    holder: str = ""
    """Who uses the tree: the resource."""
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Of a tree that is there."""

    digest: str
    """Of its manifest."""
    size: int
    """Bytes."""
    count: int
    """Number of files."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a method of `source.Source`, which the pod makes.

    Answered with: `listing` the remotes as a JSON list, or null; `head` one remote; `read` and `open` the bytes themselves. A range that
    breaks off ends the PUT early: it is sent in chunks, so that what came before is not lost.
    """

    number: int
    source: int
    """Which of the sources, counted from 0."""
    what: What
    path: str = ""
    limit: int = 0
    remote: Remote | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    reason: str
    message: str
    file: str | None = None
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a fetch is."""

    state: State
    progress: Mapping[str, int | None] = field(default_factory=dict)
    """As `counting.Snapshot.fields`."""
    failure: Failure | None = None


def sub_path(tree: str) -> str:
    """Where the files of a tree lie in a store."""
    return f"trees/{tree}/files"


def mounted_tree(mount: Mapping[str, Any]) -> str | None:
    """Of a container's `volumeMounts`; None where it is none of a tree's."""
    found = _SUB_PATH.fullmatch(mount.get("subPath") or "")
    return found["tree"] if found is not None and mount.get("name") == VOLUME else None


def ask_text(ask: Ask) -> str:
    return json.dumps(
        {
            "sources": ask.sources,
            "tree": ask.tree,
            "version": ask.version,
            "manifest": None if ask.manifest is None else json.loads(ask.manifest.text()),
            "manifestSha256": ask.manifest_sha256,
            "verify": ask.verify,
            "holder": ask.holder,
            "keep": ask.keep,
        }
    )


def read_ask(text: bytes) -> Ask:
    """Raises BadRequest, BadManifest."""
    raw = _object(text)
    manifest = raw.get("manifest")
    return Ask(
        sources=_texts(raw, "sources"),
        tree=_text(raw, "tree"),
        version=_text(raw, "version"),
        manifest=None if manifest is None else read_manifest(manifest),
        manifest_sha256=_text(raw, "manifestSha256"),
        verify=raw.get("verify") is not False,
        holder=_text(raw, "holder"),
        keep=_texts(raw, "keep"),
    )


def job_text(job: Job) -> str:
    remote = None if job.remote is None else remote_fields(job.remote)
    given = {"number": job.number, "source": job.source, "what": job.what, "path": job.path, "limit": job.limit}
    return json.dumps({**given, "remote": remote, "start": job.start, "end": job.end})


def read_job(text: bytes) -> Job:
    """Raises BadRequest."""
    raw = _object(text)
    what = _WHATS.get(_text(raw, "what"))
    if what is None:
        raise BadRequest("what the agent asks for is none of the jobs known here")
    numbers = {name: _number(raw, name) for name in ("number", "source", "limit", "start", "end")}
    remote = raw.get("remote")
    return Job(what=what, path=_text(raw, "path"), remote=None if remote is None else read_remote(remote), **numbers)


def remote_fields(remote: Remote) -> dict[str, object]:
    checksum = remote.checksum
    told = None if checksum is None else {"algorithm": checksum.algorithm, "value": base64.b64encode(checksum.value).decode()}
    return {"path": remote.path, "size": remote.size, "etag": remote.etag, "checksum": told}


def read_remote(raw: object) -> Remote:
    """Raises BadRequest."""
    if not isinstance(raw, Mapping):
        raise BadRequest("a file of a source is not told as a JSON object")
    etag, checksum = raw.get("etag"), raw.get("checksum")
    return Remote(_text(raw, "path"), _number(raw, "size"), None if etag is None else str(etag), _checksum(checksum))


def remotes_text(remotes: Sequence[Remote] | None) -> str:
    return json.dumps(None if remotes is None else [remote_fields(each) for each in remotes])


def read_remotes(text: bytes) -> list[Remote] | None:
    """Raises BadRequest."""
    raw = _parsed(text)
    if raw is None:
        return None
    if not isinstance(raw, list) or len(raw) > MOST_REMOTES:
        raise BadRequest(f"the files of a source are not told as a JSON list of {MOST_REMOTES} at most")
    return [read_remote(each) for each in raw]


def summary_text(summary: Summary) -> str:
    return json.dumps({"digest": summary.digest, "size": summary.size, "count": summary.count})


def read_summary(text: bytes) -> Summary:
    """Raises BadRequest."""
    raw = _object(text)
    return Summary(_text(raw, "digest"), _number(raw, "size"), _number(raw, "count"))


def failure_text(failure: Failure) -> str:
    return json.dumps(_failure_fields(failure))


def read_failure(raw: object) -> Failure:
    """Raises BadRequest."""
    if not isinstance(raw, Mapping):
        raise BadRequest("a failure is not told as a JSON object")
    file, seconds = raw.get("file"), raw.get("retryAfterSeconds")
    wait = float(seconds) if isinstance(seconds, (int, float)) else None
    return Failure(_text(raw, "reason"), _text(raw, "message"), None if file is None else str(file), wait)


def standing_text(standing: Standing) -> str:
    failure = None if standing.failure is None else _failure_fields(standing.failure)
    return json.dumps({"state": standing.state, "progress": dict(standing.progress), "failure": failure})


def read_standing(text: bytes) -> Standing:
    """Raises BadRequest."""
    raw = _object(text)
    state, progress, failure = _STATES.get(_text(raw, "state")), raw.get("progress"), raw.get("failure")
    if state is None or not isinstance(progress, Mapping):
        raise BadRequest("how far a fetch is, is not told as it should be")
    counts = {str(name): value if isinstance(value, int) else None for name, value in progress.items()}
    return Standing(state, counts, None if failure is None else read_failure(failure))


def _failure_fields(failure: Failure) -> dict[str, object]:
    told = {"reason": failure.reason, "message": failure.message, "file": failure.file}
    return {**told, "retryAfterSeconds": failure.retry_after_seconds}


def _checksum(raw: object) -> Checksum | None:
    if raw is None:
        return None
    if not isinstance(raw, Mapping) or raw.get("algorithm") not in get_args(Algorithm):
        raise BadRequest("the checksum of a source's file is not told as it should be")
    try:
        return Checksum(raw["algorithm"], base64.b64decode(_text(raw, "value"), validate=True))
    except binascii.Error:
        raise BadRequest("the checksum of a source's file is not in base64") from None


def has_too_many_parts(text: bytes) -> bool:
    """More than MOST_PARTS, told without reading it as JSON."""
    return sum(map(text.count, (b",", b"[", b"{"))) > MOST_PARTS


def _parsed(text: bytes) -> Any:
    if has_too_many_parts(text):
        raise BadRequest(f"what was sent has more than {MOST_PARTS} parts")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("what was sent is not JSON") from None


def _object(text: bytes) -> Mapping[str, Any]:
    raw = _parsed(text)
    if not isinstance(raw, Mapping):
        raise BadRequest("what was sent is no JSON object")
    return raw


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name, "")
    if not isinstance(value, str):
        raise BadRequest(f"{name} is no text")
    return value


def _texts(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise BadRequest(f"{name} is no list of texts")
    return tuple(value)


def _number(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"{name} is no number from 0 on")
    return value
