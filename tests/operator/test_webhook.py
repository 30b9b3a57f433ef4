"""What becomes of a pod, what the webhook knows, and what it says: without a cluster."""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import kopf
import pytest
from prometheus_client import CollectorRegistry

from inference_cache_operator.errors import ClusterError, ClusterUnreachable, Conflicting
from inference_cache_operator.injection.container import SidecarDefaults
from inference_cache_operator.injection.inject import Injected, Outcome, Refused, Unchanged, inject
from inference_cache_operator.resource import Resource, read_resource
from inference_cache_operator.webhook import configuration
from inference_cache_operator.webhook.deciding import Answer, Asked, Asker, Change, Deny, Leave, Warn, decide
from inference_cache_operator.webhook.handling import Admission, Request
from inference_cache_operator.webhook.index import Freshness, ResourceIndex
from inference_cache_operator.webhook.measuring import Measures
from inference_cache_operator.webhook.telling import Telling, event_body

ASKER = Asker("operators", "hook-a", "sidecar:1", "now")
ARTIFACTS = [{"source": "s3://m/", "mountPath": "/m"}]


def body(name: str = "faq", created: str = "2026-01-01T00:00:00Z", version: int = 1, **model: Any) -> dict[str, Any]:
    metadata = {"namespace": "llm", "name": name, "uid": f"uid-{name}", "creationTimestamp": created, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"selector": {"matchLabels": {"app": "vllm"}}, "model": {"version": "v1", **model}}}


def resource(name: str = "faq", created: str = "2026-01-01T00:00:00Z", **model: Any) -> Resource:
    return read_resource(body(name, created, **model))


def pod(app: str = "vllm", **annotations: str) -> dict[str, Any]:
    vllm = {"name": "vllm", "image": "vllm/vllm-openai:v1", "args": ["--model=m"]}
    return {"metadata": {"generateName": "p-", "labels": {"app": app}, "annotations": annotations}, "spec": {"containers": [vllm]}}


def asked(required: bool = False, namespace: str = "llm", **annotations: str) -> Asked:
    return Asked(pod(**annotations), namespace, required)


def always(outcome: Outcome) -> Any:
    return lambda *_: outcome


def test_a_pod_that_nothing_selects_is_left() -> None:
    assert isinstance(decide(asked(namespace="other"), [resource()], ASKER, always(Injected({}))), Leave)


def test_a_selected_pod_is_injected_with_the_oldest_resource_and_the_warning_names_all() -> None:
    old, young = resource("b", "2026-01-01T00:00:00Z"), resource("a", "2026-01-02T00:00:00Z")
    decision = decide(asked(), [young, old], ASKER, always(Injected({"x": 1}, ("more",))))
    assert decision == Change({"x": 1}, ("InferenceCaches b and a select this pod: b, the oldest, is used", "more"), old)


def test_what_is_injected_already_is_left() -> None:
    assert decide(asked(), [resource()], ASKER, always(Unchanged("there"))) == Leave("there")


@pytest.mark.parametrize(
    ("required", "artifacts", "kind"),
    [
        pytest.param(False, [], Warn, id="admitted"),
        pytest.param(True, [], Warn, id="nothing-is-required"),
        pytest.param(False, ARTIFACTS, Warn, id="not-by-the-fail-entry"),
        pytest.param(True, ARTIFACTS, Deny, id="denied"),
    ],
)
def test_a_refused_pod_is_denied_only_where_its_artifacts_are_required(required: bool, artifacts: list[Any], kind: type) -> None:
    decision = decide(asked(required), [resource(artifacts=artifacts)], ASKER, always(Refused("No", "because")))
    assert isinstance(decision, kind)
    assert decision.reason == "No"


def test_only_a_probe_in_the_operators_own_namespace_is_answered() -> None:
    probe = {"inferencecache.io/probe": "n"}
    assert decide(asked(namespace="operators", **probe), [], ASKER, always(Injected({}))) == Answer("hook-a=now")
    second = {**probe, "inferencecache.io/probed-by": "hook-b=old"}
    assert decide(asked(namespace="operators", **second), [], ASKER, always(Injected({}))) == Answer("hook-b=old,hook-a=now")
    assert isinstance(decide(asked(**probe), [], ASKER, always(Injected({}))), Leave)


class FakeCluster:
    def __init__(self, listed: list[dict[str, Any]] | ClusterError) -> None:
        self.listed = listed
        self.created: list[Mapping[str, Any]] = []
        self.hangs = False
        self.create_error: ClusterError | None = None

    async def list(self, path: str) -> list[dict[str, Any]]:
        assert path == "/apis/inferencecache.io/v1alpha1/namespaces/llm/inferencecaches"
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.listed, ClusterError):
            raise self.listed
        return self.listed

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        self.created.append(body)
        if self.create_error is not None:
            raise self.create_error


def admission(cluster: FakeCluster, index: ResourceIndex | None = None) -> Admission:
    measures = Measures(CollectorRegistry())
    return Admission(
        cluster=cluster,  # type: ignore[arg-type]
        index=index or ResourceIndex(),
        asker=ASKER,
        defaults=SidecarDefaults("sidecar:1"),
        measures=measures,
        telling=Telling(cluster, "hook-a", measures.events_failed),  # type: ignore[arg-type]
        list_deadline=0.2,
    )


async def admitted(by: Admission, what: Asked, dry_run: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The pod as it is admitted, and the warnings."""
    raw: Any = dict(what.pod)
    patch, warnings = kopf.Patch(body=kopf.Body(raw)), list[str]()
    await by.admit(Request(what, patch, warnings, dry_run))
    patched = json.loads(json.dumps(raw))
    for change in patch.fns:
        change(patched)
    return patched, warnings


def outcomes(by: Admission) -> dict[str, float]:
    samples = [sample for family in by.measures.admissions.collect() for sample in family.samples if sample.name.endswith("_total")]
    return {sample.labels["outcome"]: sample.value for sample in samples}


async def test_a_resource_that_no_watch_has_told_of_is_found() -> None:
    by = admission(FakeCluster([body()]))
    patched, _ = await admitted(by, asked())
    assert [each["name"] for each in patched["spec"]["initContainers"]] == ["inference-cache"]
    assert outcomes(by) == {"injected": 1}


@pytest.mark.parametrize("hangs", [False, True])
async def test_where_resources_cannot_be_read_the_index_is_asked(hangs: bool) -> None:
    index = ResourceIndex()
    index.put(body())
    cluster = FakeCluster(ClusterUnreachable("GET"))
    cluster.hangs = hangs
    by = admission(cluster, index)
    patched, _ = await admitted(by, asked())
    assert "initContainers" in patched["spec"]


async def test_probes_which_come_every_few_seconds_are_logged_for_debugging_only(caplog: pytest.LogCaptureFixture) -> None:
    by = replace(admission(FakeCluster([body()])), namespaces=("llm",))
    with caplog.at_level(logging.DEBUG):
        await admitted(by, asked(namespace="operators", **{"inferencecache.io/probe": "n"}))
        await admitted(by, asked())
    levels = {each.getMessage(): each.levelname for each in caplog.records}
    assert (levels["pod probed"], levels["pod injected"]) == ("DEBUG", "INFO")


async def test_an_error_of_ours_admits_the_pod_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    by = admission(FakeCluster([{"metadata": {}}]))
    with caplog.at_level(logging.ERROR):
        patched, _ = await admitted(by, asked())
    assert patched == pod()
    assert outcomes(by) == {"error": 1}


async def test_an_error_of_ours_denies_a_pod_that_must_have_its_artifacts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(kopf.AdmissionError):
        await admitted(admission(FakeCluster([{"metadata": {}}])), asked(required=True))


async def test_a_refusal_warns_and_is_told_once_and_not_on_a_dry_run() -> None:
    cluster = FakeCluster([body()])
    by = admission(cluster)
    refused = Asked({**pod(), "spec": {"hostNetwork": True, **pod()["spec"]}}, "llm", False)
    await admitted(by, refused, dry_run=True)
    telling = asyncio.create_task(by.telling.run())
    for _ in range(3):
        patched, warnings = await admitted(by, refused)
        assert patched == refused.pod
        assert warnings[0].startswith("InferenceCache faq: admitted without the cache: ")
    for _ in range(10):
        await asyncio.sleep(0)
    telling.cancel()
    (event,) = cluster.created
    assert event["regarding"]["name"] == "faq"
    assert event["note"].startswith("p-: ")


async def test_an_event_that_another_replica_has_written_is_no_failure() -> None:
    cluster = FakeCluster([])
    cluster.create_error = Conflicting("POST")
    by = admission(cluster)
    by.telling.say(resource(), "No", "note")
    telling = asyncio.create_task(by.telling.run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not telling.done()
    telling.cancel()


def test_two_replicas_call_the_same_event_by_the_same_name() -> None:
    one, two = (event_body(resource(), "No", "note", name, datetime.now(UTC))["metadata"]["name"] for name in ("a", "b"))
    assert one == two
    assert one != event_body(resource(), "No", "another", "a", datetime.now(UTC))["metadata"]["name"]


def test_the_index_keeps_the_newest_state() -> None:
    index = ResourceIndex()
    index.put(body(version=5))
    index.put(body(version=4, version_name="old"))
    assert not index.lacks([body(version=5)])
    assert index.lacks([body(version=6)])
    assert [each.name for each in index.within("llm")] == ["faq"]
    index.remove("uid-faq")
    assert index.within("llm") == []


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_watch_that_misses_a_change_for_a_minute_is_dead() -> None:
    index, clock, listed = ResourceIndex(), Clock(), [body(version=1)]

    async def list_all() -> list[dict[str, Any]]:
        return listed

    freshness = Freshness(index, list_all, 60.0, clock)
    await freshness.compare(0.1)
    assert not freshness.synced
    index.put(body(version=1))
    await freshness.compare(0.1)
    assert freshness.synced
    listed[:] = [body(version=2)]
    await freshness.compare(0.1)
    clock.now = 59
    assert freshness.problems() == []
    clock.now = 61
    assert freshness.problems() == ["the watch of InferenceCaches has missed a change for 61 s"]
    index.put(body(version=2))
    await freshness.compare(0.1)
    assert freshness.problems() == []


async def test_a_resource_whose_end_nobody_told_leaves_the_index() -> None:
    index = ResourceIndex()
    index.put(body())

    async def list_all() -> list[dict[str, Any]]:
        index.put(body("new"))
        return []

    await Freshness(index, list_all, 60.0).compare(0.1)
    assert index.uids() == {"uid-new"}


def present(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "c", "uid": "u", "resourceVersion": "7"}, "webhooks": list(entries)}


ENTRIES = (configuration.FIRST, configuration.AGAIN)
FIRST = {"name": configuration.FIRST, "clientConfig": {"service": {"name": "a", "namespace": "ns", "path": "/mutate", "port": 443}}}
AGAIN = {"name": configuration.AGAIN, "clientConfig": {"service": {"name": "b", "namespace": "ns", "path": "/mutate", "port": 443}}}


def test_the_bundle_goes_into_every_entry_of_the_chart_and_is_written_once() -> None:
    there = present(FIRST, AGAIN, {"name": "foreign.example.com", "clientConfig": {}})
    entries = configuration.wanted_entries(there, "QQ==", [])
    applied = configuration.apply_body(there, entries)
    assert applied is not None
    assert applied["metadata"] == {"name": "c", "uid": "u"}
    assert applied["webhooks"] == [
        {"name": name, "clientConfig": {"caBundle": "QQ=="}} for name in (configuration.FIRST, configuration.AGAIN)
    ]
    caught = [{**entry, "clientConfig": {**entry["clientConfig"], "caBundle": "QQ=="}} for entry in (FIRST, AGAIN)]
    assert configuration.apply_body(present(*caught), configuration.wanted_entries(present(*caught), "QQ==", [])) is None
    assert configuration.bundle_is_known(present(*caught), "QQ==")
    assert not configuration.bundle_is_known(present(caught[0], AGAIN), "QQ==")


def test_a_resource_with_artifacts_has_a_fail_entry_as_long_as_it_lives() -> None:
    there = present(FIRST, AGAIN)
    entries = configuration.wanted_entries(there, "QQ==", [resource(), resource("big", artifacts=ARTIFACTS)])
    required = entries[-1]
    assert [entry["name"] for entry in entries[:-1]] == [configuration.FIRST, configuration.AGAIN]
    assert required["failurePolicy"] == "Fail"
    assert required["clientConfig"] == {
        "service": {"name": "b", "namespace": "ns", "path": "/mutate-required", "port": 443},
        "caBundle": "QQ==",
    }
    assert required["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "llm"}}
    assert required["objectSelector"] == {"matchLabels": {"app": "vllm"}}
    applied = present(*[{**entry, "defaulted": True} for entry in entries])
    assert configuration.apply_body(applied, entries) is None
    without = configuration.wanted_entries(there, "QQ==", [])
    pruned = configuration.pruning_body(applied, without)
    assert pruned is not None
    assert pruned["metadata"] == {"resourceVersion": "7"}
    assert [entry["name"] for entry in pruned["webhooks"]] == list(ENTRIES)
    assert configuration.pruning_body(applied, entries) is None
    assert configuration.pruning_body(present(FIRST, AGAIN, {"name": "required-x.example.com"}), without) is None


def test_with_cert_manager_the_bundle_is_nobodys_but_its_own() -> None:
    there = present({**FIRST, "clientConfig": {"url": "https://x:1/mutate", "caBundle": "Zm9yZWlnbg=="}})
    assert configuration.apply_body(there, configuration.wanted_entries(there, None, [])) is None
    (entry,) = configuration.wanted_entries(there, None, [resource("big", artifacts=ARTIFACTS)])
    assert entry["clientConfig"] == {"url": "https://x:1/mutate-required", "caBundle": "Zm9yZWlnbg=="}


@pytest.mark.parametrize(
    ("image", "required", "kind"),
    [
        pytest.param("absent", False, Warn, id="withheld"),
        pytest.param("absent", True, Change, id="artifacts-are-required"),
        pytest.param("corrected", False, Change, id="another-image"),
    ],
)
def test_while_the_sidecars_image_cannot_be_pulled_pods_start_without(image: str, required: bool, kind: type) -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "ImagePullFailed", "message": "`absent` cannot be pulled"}
    plain = body(artifacts=ARTIFACTS)
    plain["spec"]["sidecar"] = {"image": image}
    decision = decide(asked(required), [read_resource({**plain, "status": {"conditions": [stalled]}})], ASKER, always(Injected({})))
    assert isinstance(decision, kind)
    by_default = read_resource({**body(), "status": {"conditions": [stalled]}})
    assert isinstance(decide(asked(), [by_default], Asker("operators", "hook-a", image), always(Injected({}))), kind) or required


def test_a_copy_of_an_injected_pod_loses_the_sidecar_whose_image_cannot_be_pulled_and_a_refused_one_is_told_why() -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "ImagePullFailed", "message": "`sidecar:1` cannot be pulled"}
    by = read_resource({**body(), "status": {"conditions": [stalled]}})
    copied = inject(pod(), resource("other"), SidecarDefaults("sidecar:1"), "token")
    assert isinstance(copied, Injected)
    decision = decide(Asked(copied.pod, "llm", False), [by], ASKER, always(Injected({})))
    assert isinstance(decision, Warn)
    assert decision.pod == pod()
    refused = decide(asked(), [by], ASKER, always(Refused("No", "because")))
    assert isinstance(refused, Warn)
    assert refused.reason == "No"
    assert isinstance(decide(asked(), [by], ASKER, always(Unchanged("opted out"))), Leave)
