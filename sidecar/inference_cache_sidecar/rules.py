"""From a spec to what every request goes through: small objects around the parts that last. Made anew for every spec, never changed.

`live` puts them in the place of those before; what is in flight ends under the ones it began under.
"""

from functools import partial

from inference_cache_contract.endpoints import Endpoint
from inference_cache_contract.spec import Spec
from inference_cache_sidecar.access import Tenancy
from inference_cache_sidecar.composition import Composition, stale_seconds
from inference_cache_sidecar.flying import Flying, Policy
from inference_cache_sidecar.listing import Listing
from inference_cache_sidecar.lookup import Lifetimes, Lookup
from inference_cache_sidecar.marks import Trust
from inference_cache_sidecar.metrics import Stage
from inference_cache_sidecar.pipeline import Parts, PipelineRules
from inference_cache_sidecar.placing import Placer
from inference_cache_sidecar.query.model import BypassReason
from inference_cache_sidecar.query.rules import QueryRules
from inference_cache_sidecar.render.policy import AnswerPolicy
from inference_cache_sidecar.render.renderers import renderer_for
from inference_cache_sidecar.repeats import Repeats
from inference_cache_sidecar.server import ServerLimits


def parts_of(made: Composition, spec: Spec, tenancy: Tenancy) -> Parts:
    embedder = made.embedding.embedder
    lookup = Lookup(
        made.store, made.guard, embedder, stale_seconds(spec), made.clock, partial(made.metrics.stage, Stage.SEARCH), made.refuted
    )
    placer = Placer(made.cache_name, made.identity, tenancy, query_rules(spec))
    return Parts(
        upstream=made.upstream,
        identity=made.identity,
        placer=placer,
        repeats=Repeats(placer, made.store, made.access, made.clock, spec.exact.ttl_seconds, spec.limits.body_bytes),
        access=made.access,
        trust=Trust(spec.trusted_headers.sources),
        lookup=lookup,
        flights=made.flights,
        flying=Flying(made.upstream, made.identity, made.access, lookup, made.keeper, made.metrics, policy(spec), made.coalescer),
        listing=Listing(made.upstream, made.access, lookup, made.keeper),
        renderers={endpoint: renderer_for(endpoint, answer_policy(spec)) for endpoint in Endpoint},
        passing=made.passing,
        changes=made.changes,
        served=made.served,
        metrics=made.metrics,
        clock=made.clock,
    )


def pipeline_rules(spec: Spec, bypass: BypassReason | None) -> PipelineRules:
    return PipelineRules(
        bypass=bypass,
        threshold=spec.semantic.threshold,
        lifetimes=Lifetimes(spec.exact.ttl_seconds, spec.semantic.ttl_seconds),
        categories=spec.semantic.categories,
        stale_while_revalidate_seconds=spec.stale.while_revalidate_seconds,
        stale_if_error_seconds=spec.stale.if_error_seconds,
        body_bytes=spec.limits.body_bytes,
        body_idle_seconds=spec.limits.body_idle_seconds,
    )


def server_limits(spec: Spec) -> ServerLimits:
    limits = spec.limits
    return ServerLimits(limits.header_bytes, limits.header_seconds, limits.keepalive_seconds, limits.connections)


def policy(spec: Spec) -> Policy:
    return Policy(serve_similar=spec.semantic.mode == "Serve", look_for_similar=spec.semantic.mode != "Off")


def answer_policy(spec: Spec) -> AnswerPolicy:
    answers = spec.answers
    return AnswerPolicy(answers.length, answers.tool_calls, answers.content_filter, spec.limits.answer_bytes)


def query_rules(spec: Spec) -> QueryRules:
    return QueryRules(spec.sampling.cache, spec.exact.normalize, frozenset(spec.semantic.endpoints))
