"""What makes two pods' answers interchangeable, and what does not matter."""

from typing import Any

import pytest

from inference_cache_operator.injection.revision import IGNORED_NAMES, revision

BASE: dict[str, Any] = {
    "name": "vllm",
    "image": "vllm/vllm-openai:v0.11.0",
    "command": ["vllm", "serve", "acme/model"],
    "args": ["--dtype", "half"],
    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
}
SAME = {
    "port as words": {"args": ["--port", "8000", "--dtype", "half"]},
    "port with equals": {"args": ["--dtype", "half", "--port=8000"]},
    "api key": {"args": ["--dtype", "half", "--api-key", "secret"]},
    "underscores": {"args": ["--gpu_memory_utilization", "0.9", "--dtype", "half"]},
    "batch sizes": {"args": ["--max-num-seqs=64", "--dtype", "half", "--max-num-batched-tokens", "8192"]},
    "order of variables": {"env": list(reversed(BASE["env"]))},
    "place in a group": {"env": [*BASE["env"], {"name": "LWS_WORKER_INDEX", "value": "3"}]},
    "a variable said twice": {"env": [{"name": "A", "value": "0"}, *BASE["env"]]},
    "all in command": {"command": [*BASE["command"], *BASE["args"]], "args": []},
    "what does not answer": {"resources": {"limits": {"cpu": "9"}}, "ports": [{"containerPort": 1}], "name": "other"},
}
OTHER = {
    "image": {"image": "vllm/vllm-openai:v0.11.1"},
    "model": {"command": ["vllm", "serve", "acme/other"]},
    "model behind the port": {"command": ["vllm", "serve", "--port", "8000", "acme/third"]},
    "option": {"args": ["--dtype", "bfloat16"]},
    "option added": {"args": ["--dtype", "half", "--quantization", "awq"]},
    "length": {"args": ["--dtype", "half", "--max-model-len", "4096"]},
    "entrypoint": {"command": [], "args": [*BASE["command"], *BASE["args"]]},
    "variable's value": {"env": [{"name": "A", "value": "2"}, BASE["env"][1]]},
    "variable's reference": {"env": [BASE["env"][0], {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "other"}}}]},
    "variables from a map": {"envFrom": [{"configMapRef": {"name": "m"}}]},
}


def of(change: dict[str, Any], version: str = "v1", artifacts: tuple[str, ...] = (), ignored: tuple[str, ...] = IGNORED_NAMES) -> str:
    return in_pod({}, change, version, artifacts, ignored)


def in_pod(
    spec: dict[str, Any],
    change: dict[str, Any] | None = None,
    version: str = "v1",
    artifacts: tuple[str, ...] = (),
    ignored: tuple[str, ...] = IGNORED_NAMES,
) -> str:
    vllm = {**BASE, **(change or {})}
    return revision({"metadata": {}, "spec": {**spec, "containers": [vllm]}}, vllm, version, artifacts, ignored)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_changes_no_answer_does_not_count(change: dict[str, Any]) -> None:
    assert of(change) == of({})


def test_whatever_may_change_an_answer_counts() -> None:
    found = [of(change) for change in ({}, *OTHER.values())]
    found += [of({}, version="v2"), of({}, artifacts=("sha256:a",)), of({}, artifacts=("sha256:b",))]
    assert len(set(found)) == len(found)


def test_the_model_behind_an_ignored_option_is_never_taken_for_its_value() -> None:
    args = [["--port", "8000", model] for model in ("acme/a", "acme/b")]
    assert len({of({"command": ["vllm", "serve"], "args": each}) for each in args}) == 2
    ignored = (*IGNORED_NAMES, "--disable-log-*")
    args = [["--disable-log-requests", model] for model in ("acme/a", "acme/b")]
    assert len({of({"command": ["vllm", "serve"], "args": each}, ignored=ignored) for each in args}) == 2


def test_a_shells_text_counts_by_its_words() -> None:
    texts = ["vllm serve m --dtype half", "vllm  serve m \\\n --port 9000 --dtype 'half'\n"]
    one, same = (of({"command": ["sh", "-c"], "args": [text]}) for text in texts)
    assert one == same
    assert one != of({"command": ["sh", "-c"], "args": ["vllm serve m --dtype 'half '"]})


def test_the_list_of_what_does_not_count_can_be_longer() -> None:
    change = {"env": [*BASE["env"], {"name": "OTEL_SERVICE_NAME", "value": "x"}], "args": [*BASE["args"], "--seed=5"]}
    assert of(change) != of({})
    assert of(change, ignored=(*IGNORED_NAMES, "OTEL_*", "--seed")) == of({}, ignored=(*IGNORED_NAMES, "OTEL_*", "--seed"))


def test_artifacts_count_in_no_order() -> None:
    assert of({}, artifacts=("a", "b")) == of({}, artifacts=("b", "a"))


MODELS = {"volumeMounts": [{"name": "models", "mountPath": "/models"}]}


def of_volume(volume: dict[str, Any], name: str = "models", mount: dict[str, Any] | None = None) -> str:
    mounts = [{"name": name, "mountPath": "/models", **(mount or {})}]
    return in_pod({"volumes": [{"name": name, **volume}]}, {"volumeMounts": mounts})


def test_what_vllm_mounts_counts_by_what_it_holds() -> None:
    claims = [of_volume({"persistentVolumeClaim": {"claimName": name}}) for name in ("weights-v1", "weights-v2")]
    images = [of_volume({"image": {"reference": f"example.org/weights:{tag}"}}) for tag in ("v1", "v2")]
    maps = [of_volume({"configMap": {"name": name}}) for name in ("config-v1", "config-v2")]
    parts = [of_volume({"emptyDir": {}}, mount={"subPath": part}) for part in ("v1", "v2")]
    unequal = [*claims, *images, *maps, *parts, of_volume({"emptyDir": {}}), of_volume({"emptyDir": {}}, mount={"mountPath": "/other"})]
    assert len(set(unequal)) == len(unequal)


def test_how_a_volume_is_called_and_how_much_an_empty_one_may_hold_do_not_count() -> None:
    assert of_volume({"emptyDir": {}}, "one") == of_volume({"emptyDir": {"sizeLimit": "9Gi"}}, "another")
    unmounted = {"volumes": [{"name": "logs", "hostPath": {"path": "/logs"}}]}
    assert in_pod(unmounted) == in_pod({})


def test_the_token_that_kubernetes_mounts_under_a_new_name_in_every_pod_does_not_count() -> None:
    tokens = [of_volume({"projected": {"sources": []}}, f"kube-api-access-{ending}") for ending in ("abcde", "fghij")]
    assert {*tokens} == {in_pod({})}


def of_claim(claim: str, metadata: dict[str, Any]) -> str:
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": claim}}
    vllm = {**BASE, **MODELS}
    return revision({"metadata": metadata, "spec": {"volumes": [volume]}}, vllm, "v1", (), IGNORED_NAMES)


def test_the_replicas_of_a_stateful_set_are_alike_though_each_has_a_claim_of_its_own() -> None:
    owners = [{"kind": "StatefulSet", "controller": True}]

    def replica(claim: str, name: str, **metadata: Any) -> str:
        return of_claim(f"{claim}-{name}", {"name": name, **metadata})

    assert replica("a", "vllm-0", ownerReferences=owners) == replica("a", "vllm-1", ownerReferences=owners)
    assert replica("a", "vllm-0", ownerReferences=owners) != replica("b", "vllm-0", ownerReferences=owners)
    assert replica("a", "vllm-0") != replica("a", "vllm-1")


def fetching(source: str = "s3://m/v1", **more: Any) -> dict[str, Any]:
    return {"initContainers": [{"name": "fetch", "image": "example.org/fetch", "args": [source, "/models"], **more}]}


def test_what_init_containers_do_before_vllm_starts_counts() -> None:
    unequal = [
        in_pod({}),
        in_pod(fetching()),
        in_pod(fetching("s3://m/v2")),
        in_pod(fetching(image="example.org/fetch:2")),
        in_pod(fetching(env=[{"name": "MODEL", "value": "v2"}])),
        in_pod({**fetching(**MODELS), "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "v1"}}]}),
        in_pod({**fetching(**MODELS), "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "v2"}}]}),
    ]
    assert len(set(unequal)) == len(unequal)


def test_sidecars_and_what_a_mesh_does_first_do_not_count() -> None:
    assert in_pod(fetching(restartPolicy="Always")) == in_pod({})
    assert in_pod(fetching(name="istio-init")) == in_pod({})
