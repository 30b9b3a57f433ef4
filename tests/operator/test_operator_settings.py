"""Flags and variables of both commands."""

import json
import logging

import pytest

from inference_cache_contract.errors import SpecErrors
from inference_cache_operator import command, webhook_command
from inference_cache_operator.logs import JsonFormatter, TextFormatter
from inference_cache_operator.settings import COMMON, OPERATOR, WEBHOOK, Address, Settings
from inference_cache_operator.settings_reading import FIELDS, read_settings
from inference_cache_operator.sidecar_defaults import sidecar_defaults

NEEDED = ("--own-namespace", "ns", "--sidecar-image", "i:1")


def read(*arguments: str, **environment: str) -> Settings:
    return read_settings("program", "", (*COMMON, *WEBHOOK), arguments, environment)


def refused(*arguments: str, **environment: str) -> list[str]:
    with pytest.raises(SpecErrors) as caught:
        read(*arguments, **environment)
    return [str(problem) for problem in caught.value.problems]


def test_every_flag_has_a_field_and_an_own_name() -> None:
    flags = (*COMMON, *WEBHOOK, *OPERATOR)
    assert {flag.field for flag in flags} <= FIELDS
    assert len({flag.flag for flag in flags}) == len(flags)


def test_a_flag_beats_its_variable_and_a_variable_the_default() -> None:
    told = {"INFERENCE_CACHE_OPERATOR_LOG_LEVEL": "debug", "INFERENCE_CACHE_OPERATOR_LISTEN": "[::]:7"}
    settings = read(*NEEDED, "--log-level", "error", **told)
    assert (settings.log_level, settings.listen, settings.health) == ("error", Address("::", 7), Address("0.0.0.0", 8081))


def test_namespaces_come_one_flag_each_or_in_one_variable() -> None:
    assert read(*NEEDED).namespaces == ()
    assert read(*NEEDED, "--namespace", "a", "--namespace", "b").namespaces == ("a", "b")
    assert read(*NEEDED, INFERENCE_CACHE_OPERATOR_NAMESPACE="a, b,").namespaces == ("a", "b")


def test_all_that_is_wrong_is_said_at_once_by_name() -> None:
    assert refused("--own-namespace", "A b", "--log-level", "loud", INFERENCE_CACHE_OPERATOR_LISTEN="9443") == [
        "--own-namespace: 'A b' is not the name of a Kubernetes object",
        "--log-level: 'loud' is not one of debug, info, warning, error",
        "INFERENCE_CACHE_OPERATOR_LISTEN: '9443' is not HOST:PORT, such as 0.0.0.0:8081 or [::]:8081",
        "--sidecar-image: is required (or INFERENCE_CACHE_OPERATOR_SIDECAR_IMAGE)",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(("--list-deadline", "0s"), "--list-deadline: '0s' must be more than 0", id="zero"),
        pytest.param(("--tls-folder", "/tls"), "--tls-folder: goes with --certificates cert-manager", id="folder-alone"),
        pytest.param(("--certificates", "cert-manager"), "--tls-folder: is required with --certificates cert-manager", id="no-folder"),
        pytest.param(("--listn", "x"), "usage: unknown argument --listn; did you mean --listen?", id="misspelt"),
        pytest.param(
            ("--artifacts-agent", "agent:9182"),
            "--artifacts-agent: 'agent:9182' is not http://HOST:PORT, such as http://inference-cache-agent.inference-cache.svc:9182",
            id="agent",
        ),
        pytest.param(
            ("--artifacts-folder", "/data/../etc"),
            "--artifacts-folder: '/data/../etc' is not the absolute path of a folder, such as /var/lib/inference-cache/agent",
            id="folder-above",
        ),
        pytest.param(
            ("--artifacts-folder", "/"),
            "--artifacts-folder: '/' is not the absolute path of a folder, such as /var/lib/inference-cache/agent",
            id="root",
        ),
        pytest.param(("--sidecar-resource", "cpu"), "--sidecar-resource: 'cpu' is not NAME=QUANTITY, such as memory=1Gi", id="resource"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(arguments: tuple[str, ...], problem: str) -> None:
    assert refused(*NEEDED, *arguments) == [problem]


def test_durations_are_seconds() -> None:
    assert read(*NEEDED, "--list-deadline", "1m30s").list_deadline == 90.0


def test_what_the_installation_says_of_sidecars_beats_what_is_built_in() -> None:
    defaults = sidecar_defaults(read(*NEEDED, "--sidecar-resource", "memory=3Gi", "--sidecar-pull-policy", "never"))
    assert (defaults.image, defaults.image_pull_policy, defaults.resources["memory"]) == ("i:1", "Never", "3Gi")
    assert defaults.ignored_names


def test_both_commands_are_told_of_the_agents_and_sidecars_with_them() -> None:
    told = ("--artifacts-agent", "http://agent.caches.svc:9182/", "--artifacts-folder", "/data/models/")
    settings = read(*NEEDED, *told)
    assert settings == read_settings("operator", "", (*COMMON, *OPERATOR), (*NEEDED, *told), {})
    defaults = sidecar_defaults(settings)
    assert (defaults.artifacts_agent, defaults.artifacts_folder) == ("http://agent.caches.svc:9182", "/data/models")
    alone = sidecar_defaults(read(*NEEDED))
    assert (alone.artifacts_agent, alone.artifacts_folder) == ("", "/var/lib/inference-cache/agent")


@pytest.mark.parametrize("main", [command.main, webhook_command.main])
def test_a_command_that_is_refused_ends_with_two(main: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERENCE_CACHE_OPERATOR_OWN_NAMESPACE", raising=False)
    assert callable(main)
    assert main([]) == 2
    assert "--own-namespace: is required" in capsys.readouterr().err


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    record = logging.LogRecord("n", logging.INFO, __file__, 1, "pod %s", ("injected",), None)
    record.fields = {"namespace": "llm"}
    line = json.loads(JsonFormatter().format(record))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "logger": "n", "message": "pod injected", "namespace": "llm"}
    assert TextFormatter().format(record).endswith("n: pod injected namespace=llm")


def test_how_long_the_owner_of_a_template_is_waited_for_can_be_said() -> None:
    def read_operator(*arguments: str) -> float:
        return read_settings("program", "", (*COMMON, *OPERATOR), (*NEEDED, *arguments), {}).template_wait

    assert (read_operator(), read_operator("--template-wait", "5s"), read_operator("--template-wait", "0s")) == (60.0, 5.0, 0.0)
