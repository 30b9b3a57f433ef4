"""The chart, rendered by Helm and accepted by a real API server."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.chart import CHART, IMAGES, Helm, Object, by_kind_and_name
from tests.cluster.control_plane import ControlPlane
from tests.cluster.crd import EXAMPLES
from tests.cluster.errors import CommandFailed
from tests.cluster.servers import until

from inference_cache_artifacts.agent import command as agent_command
from inference_cache_artifacts.handover.protocol import PORT
from inference_cache_operator.injection.container import ARTIFACTS_FOLDER
from inference_cache_operator.settings import COMMON, OPERATOR, WEBHOOK
from inference_cache_operator.settings_reading import read_settings

pytestmark = pytest.mark.slow

ALL_OPTIONS = ["--set", "redis.enabled=true,networkPolicy.enabled=true,commonLabels.team=ml,redis.passwordSecret=r,log.level=debug"]
AGENTS = [
    "--set",
    "artifacts.enabled=true,artifacts.agent.limitRate=200Mi,artifacts.agent.hostPath=/data/models,networkPolicy.enabled=true",
]
NUMBERS = [
    "--set-json",
    'artifacts={"enabled":true,"agent":{"reserve":107374182400,"limitRate":1073741824}}',
    "--set-json",
    'redis={"enabled":true,"memoryMiB":1048576,"persistence":{"size":4294967296}}',
    "--set-json",
    'operator={"replicas":1000000,"resources":{"limits":{"memory":4294967296}}}',
]
"""JSON and values files have floats only."""
NAMESPACED = ["--set", "namespaces={llm,chat},certificates.source=cert-manager"]
REQUIRED = ["--set-json", 'webhook.configuration.required=[{"namespace":"llm","name":"faq","selector":{"matchLabels":{"app":"vllm"}}}]']
NAMED = IMAGES[1]
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/")
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding")


@pytest.fixture(scope="session")
def offline(helm: Path) -> Helm:
    return Helm(helm)


def test_helm_finds_nothing_to_complain_about(offline: Helm) -> None:
    assert "0 chart(s) failed" in offline.run("lint", "--strict", str(CHART))


@pytest.mark.parametrize("options", [[], ALL_OPTIONS, AGENTS, NAMESPACED], ids=["default", "all", "agents", "namespaced"])
def test_two_renders_are_equal_to_the_byte(offline: Helm, options: list[str]) -> None:
    assert offline.render(*options) == offline.render(*options)


@pytest.mark.parametrize(
    ("values", "path"),
    [
        pytest.param("webhook.replicas=3", "'/webhook': additional properties 'replicas'", id="unknown"),
        pytest.param("redis.memoryMiB=10", "'/redis/memoryMiB': minimum", id="too-small"),
        pytest.param("operator.resources.limits.memory=lots", "'/operator/resources/limits/memory'", id="quantity"),
        pytest.param("operator.replicas=two", "'/operator/replicas'", id="kind"),
        pytest.param("image.digest=md5:1", "'/image/digest'", id="digest"),
        pytest.param("certificates.source=vault", "'/certificates/source'", id="choice"),
        pytest.param("artifacts.agent.hostPath=models", "'/artifacts/agent/hostPath'", id="relative-folder"),
        pytest.param("artifacts.agent.hostPath=/", "'/artifacts/agent/hostPath'", id="root"),
        pytest.param("artifacts.agent.hostPath=/data/../etc", "'/artifacts/agent/hostPath'", id="folder-above"),
        pytest.param("artifacts.agent.reserve=some", "'/artifacts/agent/reserve'", id="reserve"),
        pytest.param("artifacts.agent.limitRate=200MB/s", "'/artifacts/agent/limitRate'", id="rate"),
        pytest.param("artifacts.agent.affinity.nodes=a", "additional properties 'nodes'", id="affinity"),
        pytest.param("artifacts.agent.port=1", "additional properties 'port'", id="port"),
        pytest.param(f"{NAMESPACED[1]},artifacts.enabled=true", "artifacts.enabled: not where `namespaces` are given", id="no-agents"),
        pytest.param("namespaces={llm}", "certificates.source: must be cert-manager", id="contradiction"),
    ],
)
def test_invalid_values_are_refused_with_their_path(offline: Helm, values: str, path: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        offline.render("--set", values)
    assert path in str(refused.value)


@pytest.mark.parametrize(
    ("values", "unnamed"),
    [
        pytest.param("log.level=info", "image.repository, sidecar.image.repository: must be set", id="none"),
        pytest.param("image.repository=registry.example/operator", "sidecar.image.repository: must be set", id="no-sidecar"),
        pytest.param(f"{NAMED},redis.enabled=true,redis.image.repository=", "redis.image.repository: must be set", id="no-redis"),
    ],
)
def test_an_image_that_is_not_named_is_asked_for_by_its_value(helm: Path, values: str, unnamed: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        Helm(helm, images=()).render("--set", values)
    assert f": {unnamed}" in str(refused.value)


@pytest.mark.parametrize(
    "options", [[], ALL_OPTIONS, AGENTS, NUMBERS, [*NAMESPACED, *REQUIRED]], ids=["default", "all", "agents", "numbers", "namespaced"]
)
def test_the_api_server_accepts_every_object_without_a_warning(
    control_plane: ControlPlane, offline: Helm, namespace: str, options: list[str]
) -> None:
    for owned in ("llm", "chat"):
        control_plane.kubectl("create", "namespace", owned, check=False)
    objects = [each for each in offline.objects(*options, namespace=namespace) if not each["apiVersion"].startswith(FOREIGN)]
    manifest = "---\n".join(map(yaml.safe_dump, objects))
    applied = control_plane.kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "--warnings-as-errors",
        "-f",
        "-",
        stdin=manifest,
    )
    assert len(applied.splitlines()) == len(objects) > 15


def test_pods_pass_pod_security_restricted(control_plane: ControlPlane, offline: Helm, namespace: str) -> None:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    objects = offline.objects(*ALL_OPTIONS, namespace=namespace)
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    pods = [_pod_of(each) for each in objects if each["kind"] in ("Deployment", "StatefulSet")]
    control_plane.kubectl("apply", "-f", "-", stdin="---\n".join(map(yaml.safe_dump, accounts)))
    made = control_plane.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin="---\n".join(map(yaml.safe_dump, pods)))
    assert len(made.splitlines()) == len(pods) == 4


@pytest.mark.parametrize("values", [pytest.param(each, id=each.stem) for each in sorted((EXAMPLES / "values").glob("*.yaml"))])
def test_the_samples_values_are_values_of_the_chart(offline: Helm, values: Path) -> None:
    assert by_kind_and_name(offline.objects("-f", str(values)))["DaemonSet", "inference-cache-agent"]


def test_of_an_agent_pod_security_finds_root_and_the_nodes_folder_and_nothing_else(
    control_plane: ControlPlane, offline: Helm, namespace: str
) -> None:
    objects = by_kind_and_name(offline.objects(*AGENTS, namespace=namespace))
    pod = json.dumps(_pod_of(objects["DaemonSet", "inference-cache-agent"]))
    control_plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(objects["ServiceAccount", "inference-cache-agent"]))
    label = "pod-security.kubernetes.io/enforce"
    control_plane.kubectl("label", "namespace", namespace, f"{label}=restricted")

    def violations() -> str:
        """Empty until the API server has taken the label into account."""
        try:
            control_plane.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=pod)
        except CommandFailed as error:
            return str(error).partition('violates PodSecurity "restricted:latest": ')[2]
        return ""

    until(lambda: violations() != "", "the label", 60)
    assert {each.strip().split(" ")[0] for each in re.sub(r"\(.*?\)", "", violations()).split(",")} == {
        "restricted",
        "runAsNonRoot",
        "runAsUser=0",
    }
    control_plane.kubectl("label", "namespace", namespace, f"{label}=privileged", "--overwrite")
    assert control_plane.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", stdin=pod)


def _pod_of(workload: Object) -> Object:
    template = workload["spec"]["template"]
    claimed = [{"name": each["metadata"]["name"], "emptyDir": {}} for each in workload["spec"].get("volumeClaimTemplates", ())]
    spec = template["spec"] | {"volumes": [*template["spec"].get("volumes", ()), *claimed]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": workload["metadata"]["name"]}, "spec": spec}


@pytest.mark.parametrize("options", [[], AGENTS, NAMESPACED], ids=["default", "agents", "namespaced"])
def test_both_commands_understand_the_flags_they_are_given(offline: Helm, options: list[str]) -> None:
    known = {"operator": (*COMMON, *OPERATOR), "webhook": (*COMMON, *WEBHOOK)}
    containers = [each["spec"]["template"]["spec"]["containers"][0] for each in offline.objects(*options) if each["kind"] == "Deployment"]
    assert len(containers) == 3
    for container in containers:
        command, *flags = container["args"]
        environment = {each["name"]: "caches" for each in container["env"]}
        settings = read_settings(command, "", known[command], flags, environment)
        assert settings.own_namespace == "caches"
        assert settings.sidecar_image.startswith("registry.example/sidecar:")
        agents = ("http://inference-cache-agent.caches.svc:9182", "/data/models") if options is AGENTS else ("", ARTIFACTS_FOLDER)
        assert (settings.artifacts_agent, settings.artifacts_folder) == agents


@pytest.mark.parametrize(
    ("options", "reserve", "rate"),
    [pytest.param(AGENTS, 1 << 30, 200 << 20, id="text"), pytest.param(NUMBERS, 100 << 30, 1 << 30, id="numbers")],
)
def test_an_agent_understands_the_flags_it_is_given(offline: Helm, options: list[str], reserve: int, rate: int) -> None:
    (container,) = _template(by_kind_and_name(offline.objects(*options)))["spec"]["containers"]
    command, *flags = container["args"]
    asked = agent_command._parser().parse_args([*flags, "--api-server=https://api.example"])
    assert command == "agent"
    assert str(asked.root) == "/var/lib/inference-cache/agent"
    assert (asked.reserve, asked.limit_rate) == (reserve, rate)


def test_numbers_of_a_values_file_are_written_in_full(offline: Helm, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("redis: {enabled: true, memoryMiB: 1048576}\noperator: {replicas: 1000000}\nwebhook: {replicasPerGroup: 1000000}\n")
    objects = by_kind_and_name(offline.objects("-f", str(values)))
    (redis,) = objects["StatefulSet", "inference-cache-redis"]["spec"]["template"]["spec"]["containers"]
    assert redis["resources"]["limits"]["memory"] == redis["resources"]["requests"]["memory"] == "1048576Mi"
    replicas = [each["spec"]["replicas"] for each in objects.values() if each["kind"] == "Deployment"]
    assert [(type(each), each) for each in replicas] == [(int, 1000000)] * 3


TERMS = "artifacts.agent.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
IN_A_POOL = '[{"matchExpressions":[{"key":"pool","operator":"In","values":["a"]}]}]'
LINUX = {"kubernetes.io/os": "linux"}
NOT_VIRTUAL = [("type", "NotIn", ["virtual-kubelet"]), ("eks.amazonaws.com/compute-type", "NotIn", ["fargate"])]


@pytest.mark.parametrize(
    ("options", "selector", "terms"),
    [
        pytest.param([], LINUX, NOT_VIRTUAL, id="default"),
        pytest.param(["--set-json", 'artifacts.agent.nodeSelector={"gpu":"yes"}'], {**LINUX, "gpu": "yes"}, NOT_VIRTUAL, id="narrower"),
        pytest.param(["--set-json", f"{TERMS}={IN_A_POOL}"], LINUX, [("pool", "In", ["a"])], id="replaced"),
        pytest.param(["--set", "artifacts.agent.affinity=null,artifacts.agent.nodeSelector=null"], {}, [], id="none"),
    ],
)
def test_agents_run_on_nodes_that_have_a_disk_unless_values_say_otherwise(
    offline: Helm, options: list[str], selector: Object, terms: list[object]
) -> None:
    spec = _template(by_kind_and_name(offline.objects(*AGENTS, *options)))["spec"]
    assert spec.get("nodeSelector", {}) == selector
    assert _node_terms(spec.get("affinity")) == terms


def _node_terms(affinity: Object | None) -> list[tuple[str, str, list[str]]]:
    if affinity is None:
        return []
    (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return [(each["key"], each["operator"], each["values"]) for each in term["matchExpressions"]]


def test_pods_reach_the_agent_of_their_own_node_where_it_listens(offline: Helm) -> None:
    objects = by_kind_and_name(offline.objects(*AGENTS))
    service, template = objects["Service", "inference-cache-agent"]["spec"], _template(objects)
    assert service["internalTrafficPolicy"] == "Local"
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    assert [each["port"] for each in service["ports"]] == [PORT]
    assert [each["containerPort"] for each in template["spec"]["containers"][0]["ports"]] == [PORT]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "agent"


def test_an_agent_has_the_folder_that_pods_mount(offline: Helm) -> None:
    template = _template(by_kind_and_name(offline.objects(*AGENTS)))
    mounts = {each["name"]: each["mountPath"] for each in template["spec"]["containers"][0]["volumeMounts"]}
    folders = {mounts[each["name"]]: each["hostPath"] for each in template["spec"]["volumes"] if "hostPath" in each}
    assert folders == {"/var/lib/inference-cache/agent": {"path": "/data/models", "type": "DirectoryOrCreate"}}


def _template(objects: Mapping[tuple[str, str], Object]) -> Object:
    template: Object = objects["DaemonSet", "inference-cache-agent"]["spec"]["template"]
    return template


def test_without_agents_nothing_of_them_is_there_and_nobody_may_create_pods(offline: Helm) -> None:
    assert not [each for each in offline.objects() if "agent" in each["metadata"]["name"]]
    assert _verbs_of_pods(offline.objects()) == {"list", "patch"}
    assert _verbs_of_pods(offline.objects(*AGENTS)) == {"list", "patch", "create", "delete"}


def _verbs_of_pods(objects: list[Object]) -> set[str]:
    """That the operator has in all namespaces."""
    rules = by_kind_and_name(objects)["ClusterRole", "inference-cache-operator"]["rules"]
    return {verb for rule in rules if "pods" in rule["resources"] for verb in rule["verbs"]}


def test_an_agent_reviews_tokens_and_lists(offline: Helm) -> None:
    rules = by_kind_and_name(offline.objects(*AGENTS))["ClusterRole", "inference-cache-agent"]["rules"]
    assert {(*rule["resources"], *rule["verbs"]) for rule in rules} == {
        ("tokenreviews", "create"),
        ("pods", "list"),
        ("inferencecaches", "list"),
    }


@pytest.mark.parametrize(("options", "said"), [([], False), (AGENTS, True)], ids=["without", "with-agents"])
def test_the_notes_say_what_the_namespace_must_allow(offline: Helm, options: list[str], said: bool) -> None:
    notes = offline.run("install", "x", str(CHART), "--dry-run=client", "--namespace", "caches", *offline.images, *options)
    assert ("kubectl label namespace caches pod-security.kubernetes.io/enforce=privileged" in notes) is said
    assert ("in its folder /data/models" in notes) is said


def test_a_namespaced_install_has_roles_only(offline: Helm) -> None:
    objects = offline.objects(*NAMESPACED)
    assert [each["kind"] for each in objects if each["kind"] in CLUSTER_WIDE] == []
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] == "Role"} == {"llm", "chat", "caches"}
    entries = _webhooks(objects)
    assert all(entry["namespaceSelector"]["matchExpressions"][0]["values"] == ["llm", "chat", "caches"] for entry in entries)


@pytest.mark.parametrize(("excluded", "left"), [("kube-system,caches", ["kube-system"]), ("caches", [])], ids=["beside-others", "alone"])
def test_the_releases_own_namespace_is_not_excluded(offline: Helm, excluded: str, left: list[str]) -> None:
    entries = _webhooks(offline.objects("--set", f"webhook.excludedNamespaces={{{excluded}}}"))
    told = [each["values"] for entry in entries for each in entry["namespaceSelector"]["matchExpressions"]]
    assert told == [left] * len(entries) if left else told == []


def test_secrets_are_reached_by_name_only(offline: Helm) -> None:
    rules = [rule for each in offline.objects() if each["kind"] in ("Role", "ClusterRole") for rule in each.get("rules") or ()]
    of_secrets = [rule for rule in rules if "secrets" in rule["resources"]]
    assert of_secrets
    for rule in of_secrets:
        assert rule["resourceNames"] == ["inference-cache-certificates"]
        assert set(rule["verbs"]) <= {"get", "patch"}


@pytest.mark.parametrize("options", [[], AGENTS], ids=["default", "agents"])
def test_no_rule_has_a_star(offline: Helm, options: list[str]) -> None:
    rules = [rule for each in offline.objects(*options) if each["kind"] in ("Role", "ClusterRole") for rule in each.get("rules") or ()]
    assert not [rule for rule in rules if "*" in json.dumps(rule)]


def test_what_is_written_at_run_time_is_not_in_the_chart(offline: Helm) -> None:
    objects = by_kind_and_name(offline.objects())
    assert "data" not in objects["Secret", "inference-cache-certificates"]
    assert not any("caBundle" in entry["clientConfig"] for entry in _webhooks(list(objects.values())))


def test_the_definition_says_what_the_projects_says_and_stays(offline: Helm) -> None:
    source = yaml.safe_load((CHART / "files" / "inferencecaches.inferencecache.io.yaml").read_text())
    rendered = next(each for each in offline.objects() if each["kind"] == "CustomResourceDefinition")
    assert rendered["spec"] == source["spec"]
    assert rendered["metadata"]["annotations"].items() >= {"helm.sh/resource-policy": "keep"}.items()
    assert not [each for each in offline.objects("--set", "crds.install=false") if each["kind"] == "CustomResourceDefinition"]


def test_names_fit_whatever_the_release_is_called(offline: Helm) -> None:
    objects = offline.objects(*ALL_OPTIONS, *AGENTS, release="a-name-of-fifty-three-characters-which-is-helms-limit")
    assert max(len(each["metadata"]["name"]) for each in objects) <= 63


def _webhooks(objects: list[Object]) -> list[dict[str, Any]]:
    return next(each["webhooks"] for each in objects if each["kind"] == "MutatingWebhookConfiguration")


def test_an_upgrade_keeps_what_the_operator_wrote_and_an_uninstall_only_the_definition(
    control_plane: ControlPlane, helm: Path, namespace: str
) -> None:
    cluster, kubectl = Helm(helm, control_plane.kubeconfig), control_plane.kubectl
    cluster.install(namespace)
    _write_as_the_operator(control_plane, namespace)
    cluster.install(namespace, "--set", "operator.replicas=3,commonLabels.team=ml")
    assert kubectl("get", "deployment", "inference-cache-operator", "-n", namespace, "-o", "jsonpath={.spec.replicas}") == "3"
    assert kubectl("get", "secret", "inference-cache-certificates", "-n", namespace, "-o", "jsonpath={.data}") == '{"ca.crt":"Y2E="}'
    bundles = kubectl("get", "mutatingwebhookconfiguration", "inference-cache", "-o", "jsonpath={.webhooks[*].clientConfig.caBundle}")
    assert bundles.split() == [PEM_BASE64, PEM_BASE64]
    cluster.uninstall(namespace)
    selector = "app.kubernetes.io/part-of=inference-cache"
    kinds = "deployments,replicasets,pods,services,secrets,serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases"
    until(lambda: not kubectl("get", kinds, "-n", namespace, "-l", selector, "-o", "name"), "the uninstall", 60)
    left = kubectl("get", "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,crds", "-l", selector, "-o", "name")
    assert left.split() == ["customresourcedefinition.apiextensions.k8s.io/inferencecaches.inferencecache.io"]


def _write_as_the_operator(plane: ControlPlane, namespace: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "inference-cache-certificates", "namespace": namespace}}
    entries = [
        {"name": name, "clientConfig": {"caBundle": PEM_BASE64}} for name in ("pods.inferencecache.io", "pods-again.inferencecache.io")
    ]
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "inference-cache"},
    }
    for body in (secret | {"data": {"ca.crt": "Y2E="}}, configuration | {"webhooks": entries}):
        plane.kubectl("apply", "--server-side", "--field-manager=inference-cache-certificates", "-f", "-", stdin=json.dumps(body))


PEM_BASE64 = "Cg=="
