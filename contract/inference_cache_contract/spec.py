"""The resource's spec as the sidecar uses it: every field with its kind, default, unit and reason.

One description drives all: reading a file, flags, environment, help, `--print-config` and the settings page.
Composition roots read a `Spec` with `parse_spec`; everything below them gets the section that it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from inference_cache_contract.canonical import Normalize
from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.errors import SpecErrors, SpecProblem
from inference_cache_contract.spec_accepted import ACCEPTED
from inference_cache_contract.spec_features import Features
from inference_cache_contract.spec_fields import Holds, Says, Section, members
from inference_cache_contract.spec_invalidation import Invalidation, contradictions
from inference_cache_contract.spec_kinds import (
    BOOLEAN,
    BYTES,
    COUNT,
    DURATION,
    ENDPOINTS,
    FRACTION,
    MATCH,
    NAME,
    NETWORKS,
    TEXT,
    Network,
    choice,
)
from inference_cache_contract.spec_reader import read, rows, write

Mode = Literal["Enabled", "Bypass"]
SemanticMode = Literal["Serve", "Shadow", "Off"]
SamplingCache = Literal["Deterministic", "Unstated", "All"]
TenancySource = Literal["Authorization", "Shared"]
AnswerPolicy = Literal["All", "Exact", "Never"]

_HOUR: Final = 3600.0
_POLICY = choice("All", "Exact", "Never")
_NORMALIZED: Final = Normalize()
_INVALIDATION: Final = Invalidation()
_FEATURES: Final = Features()
_NORMALIZE: Final = {
    "whitespace": Says(BOOLEAN, "runs of white space count as one blank"),
    "case": Says(BOOLEAN, "upper and lower case are equal, outside code and acronyms"),
    "punctuation": Says(BOOLEAN, "what ends a sentence does not count; nothing inside one is touched"),
}


@dataclass(frozen=True, slots=True)
class Model:
    name: Annotated[str, Says(TEXT, "the model as clients name it; empty: whatever upstream serves")] = ""
    version: Annotated[str, Says(TEXT, "part of every entry's scope: after a change, answers of the old version are never found")] = ""


@dataclass(frozen=True, slots=True)
class Exact:
    ttl_seconds: Annotated[float, Says(DURATION, "how long an answer may be repeated to an equal question", "ttl")] = 24 * _HOUR
    normalize: Annotated[Normalize, Holds("what does not make two chat prompts different", _NORMALIZE)] = _NORMALIZED


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    name: Annotated[str, Says(NAME, "the embedding model")] = "all-MiniLM-L6-v2"
    path: Annotated[str | None, Says(NAME, "folder of the model's files; absent: the one that was installed under that name")] = None
    deadline_seconds: Annotated[
        float, Says(DURATION, "a slower embedding is given up, and the request looked up exactly only", "deadline")
    ] = 0.05


@dataclass(frozen=True, slots=True)
class Category:
    """Requests that share a threshold or a lifetime: those whose headers match, or that a trusted caller assigns by name."""

    name: Annotated[str, Says(NAME, "the category's name, as in x-inference-cache-category")]
    match: Annotated[tuple[tuple[str, str], ...], Says(MATCH, "request headers (lower-case name, value) that must all be there")] = ()
    threshold: Annotated[float | None, Says(FRACTION, "instead of spec.semantic.threshold")] = None
    ttl_seconds: Annotated[float | None, Says(DURATION, "instead of spec.exact.ttl and spec.semantic.ttl", "ttl")] = None


@dataclass(frozen=True, slots=True)
class Semantic:
    mode: Annotated[
        SemanticMode,
        Says(choice("Serve", "Shadow", "Off"), "Serve answers rephrased questions, Shadow only measures, Off embeds nothing"),
    ] = "Serve"
    threshold: Annotated[float, Says(FRACTION, "least cosine similarity of two prompts that may share an answer")] = 0.92
    max_wrong_rate: Annotated[
        float, Says(FRACTION, "bound on the share of wrong semantic hits that calibration will keep; not enforced yet")
    ] = 0.02
    ttl_seconds: Annotated[float, Says(DURATION, "how long an answer may be repeated to a similar question", "ttl")] = 168 * _HOUR
    endpoints: Annotated[
        tuple[Endpoint, ...],
        Says(ENDPOINTS, "where prompts may be similar; completions can be added, though its prompts carry whole templates"),
    ] = (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES)
    embedder: Annotated[EmbedderSpec, Holds("what turns prompts into vectors")] = EmbedderSpec()
    categories: Annotated[tuple[Category, ...], Says(rows(Category), "kinds of requests with a threshold or lifetime of their own")] = ()


@dataclass(frozen=True, slots=True)
class Sampling:
    cache: Annotated[
        SamplingCache,
        Says(
            choice("Deterministic", "Unstated", "All"),
            "Deterministic: only temperature 0 or a seed; Unstated: also where the request says nothing; All: every request",
        ),
    ] = "Unstated"


@dataclass(frozen=True, slots=True)
class Tenancy:
    source: Annotated[
        TenancySource,
        Says(choice("Authorization", "Shared"), "who shares answers: callers with one credential, or all callers", "from"),
    ] = "Authorization"
    claim: Annotated[str | None, Says(NAME, "partition by this claim of the credential (a JWT) instead of by the whole credential")] = None
    verified_by: Annotated[str | None, Says(choice("Gateway"), "who has verified the JWT before it comes here; required with claim")] = None
    revalidate_seconds: Annotated[
        float, Says(DURATION, "how long upstream's acceptance of a credential lets it have hits", "revalidate")
    ] = 300.0


@dataclass(frozen=True, slots=True)
class Memory:
    max_bytes: Annotated[int, Says(BYTES, "hard cap: entries, index, scopes and overhead")] = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Redis:
    deadline_seconds: Annotated[float, Says(DURATION, "a slower answer of the shared store is not waited for", "deadline")] = 0.02


@dataclass(frozen=True, slots=True)
class Store:
    memory: Annotated[Memory, Holds("the store in this process")] = Memory()
    redis: Annotated[Redis, Holds("the store that all replicas share")] = Redis()


@dataclass(frozen=True, slots=True)
class Stale:
    while_revalidate_seconds: Annotated[
        float,
        Says(DURATION, "how long past its end an answer is served while a fresh one is fetched; 0s: not at all", "whileRevalidate"),
    ] = 0.0
    if_error_seconds: Annotated[
        float,
        Says(DURATION, "how long past its end an answer is served when upstream fails (429, 5xx, timeout); 0s: not at all", "ifError"),
    ] = 0.0


@dataclass(frozen=True, slots=True)
class Answers:
    """All: stored and found both ways; Exact: found by an equal question only; Never: not stored."""

    length: Annotated[AnswerPolicy, Says(_POLICY, "answers cut off by their token limit")] = "Exact"
    tool_calls: Annotated[AnswerPolicy, Says(_POLICY, "answers that call tools")] = "Exact"
    content_filter: Annotated[AnswerPolicy, Says(_POLICY, "answers that a content filter stopped")] = "Never"


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: Annotated[int, Says(BYTES, "a longer request body is streamed through uncached")] = 2**20
    answer_bytes: Annotated[int, Says(BYTES, "a longer answer is passed on but not stored: taking it in would hold up others")] = 2 * 2**20
    header_bytes: Annotated[int, Says(BYTES, "longer request headers are refused")] = 64 * 2**10
    header_seconds: Annotated[float, Says(DURATION, "how long a client may take to send its headers", "headerTimeout")] = 10.0
    body_idle_seconds: Annotated[float, Says(DURATION, "how long a client may pause inside its body", "bodyIdleTimeout")] = 60.0
    connect_seconds: Annotated[float, Says(DURATION, "how long connecting to upstream may take", "connectTimeout")] = 5.0
    upstream_idle_seconds: Annotated[
        float,
        Says(DURATION, "how long upstream may send nothing; 0s: for ever, since a model may take any time", "upstreamIdleTimeout"),
    ] = 0.0
    keepalive_seconds: Annotated[float, Says(DURATION, "how long an idle client connection stays open", "keepalive")] = 75.0
    connections: Annotated[int | None, Says(COUNT, "client connections at once; absent: no limit")] = None


@dataclass(frozen=True, slots=True)
class TrustedHeaders:
    sources: Annotated[
        tuple[Network, ...],
        Says(NETWORKS, "networks of the callers whose x-inference-cache-ttl, -tags and -category count; none: nobody's", "from"),
    ] = ()


@dataclass(frozen=True, slots=True)
class Spec:
    """`Spec()` holds the defaults: what a sidecar without a file does."""

    mode: Annotated[Mode, Says(choice("Enabled", "Bypass"), "Bypass passes everything through and stores nothing")] = "Enabled"
    model: Annotated[Model, Holds("the served model")] = Model()
    exact: Annotated[Exact, Holds("answers to equal questions")] = Exact()
    semantic: Annotated[Semantic, Holds("answers to similar questions")] = Semantic()
    sampling: Annotated[Sampling, Holds("which requests ask for an answer that may be repeated")] = Sampling()
    tenancy: Annotated[Tenancy, Holds("who shares answers")] = Tenancy()
    store: Annotated[Store, Holds("where answers are kept")] = Store()
    invalidation: Annotated[Invalidation, Holds("how flushes reach every replica, and events that order them")] = _INVALIDATION
    features: Annotated[Features, Holds("the feature cache, for a Feast-compatible feature server")] = _FEATURES
    stale: Annotated[Stale, Holds("answers past their end")] = Stale()
    answers: Annotated[Answers, Holds("what is kept of answers that did not simply end: all, for exact repeats, never")] = Answers()
    limits: Annotated[Limits, Holds("sizes and times")] = Limits()
    trusted_headers: Annotated[TrustedHeaders, Holds("whose x-inference-cache-* request headers count")] = TrustedHeaders()


SPEC: Final = Section("spec", "spec", Spec, members(Spec), "")


def parse_spec(raw: Mapping[str, Any]) -> Spec:
    """Raises SpecErrors with every problem and its path, e.g. `spec.semantic.threshold: 1.4 is not in [0, 1]`."""
    problems: list[SpecProblem] = []
    spec = read(SPEC, raw, "spec", ACCEPTED, problems)
    if isinstance(spec, Spec):
        problems.extend(_contradictions(spec))
        problems.extend(contradictions(spec.invalidation))
    if problems or not isinstance(spec, Spec):
        raise SpecErrors(problems)
    return spec


def show_spec(spec: Spec) -> dict[str, object]:
    """In the resource's form, every effective value; `parse_spec` makes an equal `Spec` of it."""
    return write(SPEC.members, spec)


def _contradictions(spec: Spec) -> list[SpecProblem]:
    tenancy = spec.tenancy
    if tenancy.claim is not None and tenancy.source == "Shared":
        return [SpecProblem("spec.tenancy.claim", "partitions callers, which `from: Shared` does not")]
    if tenancy.claim is not None and tenancy.verified_by is None:
        return [SpecProblem("spec.tenancy.verifiedBy", "must be Gateway where claim is set: an unverified token proves nothing")]
    return []
