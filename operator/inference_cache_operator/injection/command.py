"""Tells whether a container's command starts vLLM's OpenAI server, and where an argument can be added. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from inference_cache_operator.injection import shell
from inference_cache_operator.injection.refusal import Refusal
from inference_cache_operator.injection.words import Word, environment, expand

_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh"})
_LAUNCHERS: Final = frozenset({"exec", "tini", "dumb-init", "env", "catatonit"})
_PYTHON: Final = re.compile(r"python[0-9.]*")
_SERVERS: Final = frozenset({"vllm.entrypoints.openai.api_server"})
_CLI: Final = frozenset({"vllm.entrypoints.cli.main"})
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_VLLM_IMAGE: Final = re.compile(r"(?:.*[-_.])?vllm(?:[-_.].*)?")
_OTHER_IMAGE: Final = re.compile(r"router|exporter|gateway|proxy|operator|bench|client|controller|dashboard|webhook")
_OFFICIAL: Final = frozenset({"vllm/vllm-openai", "docker.io/vllm/vllm-openai", "index.docker.io/vllm/vllm-openai"})
_NO_SERVER: Final = "is not started by `vllm serve` or `python -m vllm.entrypoints.openai.api_server`: make that its command"


@dataclass(frozen=True, slots=True)
class Place:
    """Where arguments are added: behind the last word of a field, or inside the text that a shell reads."""

    field: str
    """`command` or `args`."""
    shell_index: int | None = None
    """Of the shell's text in the field."""


@dataclass(frozen=True, slots=True)
class VllmCommand:
    arguments: tuple[Word, ...]
    """What vLLM's own parser gets."""
    place: Place


def read_command(container: Mapping[str, Any], named: bool = False) -> VllmCommand | None:
    """None: this is not vLLM. `named`: somebody says that it is. Raises Refusal where it is, and cannot be understood."""
    variables = environment(container)
    command, args = (_words(container.get(field) or (), variables) for field in ("command", "args"))
    ours = named or image_is_vllm(container.get("image") or "")
    if command or _starts_a_program(args):
        return _read_program(container, (*command, *args), ours, len(command))
    if args and ours:
        return VllmCommand(args, Place("args"))
    if not ours:
        return None
    if repository(container.get("image") or "") in _OFFICIAL:
        return VllmCommand((), Place("args"))
    raise Refusal("CommandUnknown", "has neither command nor args, so vLLM cannot be given another port: write its arguments into args")


def repository(image: str) -> str:
    """Without tag and digest."""
    name = image.split("@", 1)[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.split(":", 1)[0]


def image_is_vllm(image: str) -> bool:
    last = repository(image).rsplit("/", 1)[-1].lower()
    return _VLLM_IMAGE.fullmatch(last) is not None and _OTHER_IMAGE.search(last) is None


def _words(texts: Sequence[str], variables: Mapping[str, str | None]) -> tuple[Word, ...]:
    return tuple(expand(text, variables) for text in texts)


def _starts_a_program(args: Sequence[Word]) -> bool:
    """Arguments to an entrypoint that runs what it is given."""
    program = _program(args[0]) if args else ""
    return program in _SHELLS | _LAUNCHERS | {"ray"} or program == "vllm" or _PYTHON.fullmatch(program) is not None


def _program(word: Word) -> str:
    return PurePosixPath(word.text).name


def _read_program(container: Mapping[str, Any], words: tuple[Word, ...], ours: bool, commands: int) -> VllmCommand | None:
    field = "args" if len(words) > commands else "command"
    at = _after_launchers(words)
    if at < len(words) and _program(words[at]) in _SHELLS:
        found = _read_shell(container, words, at + 1, commands)
    else:
        arguments = _server_arguments(words[at:])
        found = None if arguments is None else VllmCommand(arguments, Place(field))
    if found is None and ours:
        raise Refusal("CommandUnknown", _NO_SERVER)
    return found


def _after_launchers(words: Sequence[Word]) -> int:
    """Where the program stands behind `env A=b`, `tini --` and the like."""
    at = 0
    while at < len(words):
        text = words[at].text
        launched = at > 0 and (text.startswith("-") or _ASSIGNMENT.fullmatch(text))
        if _program(words[at]) not in _LAUNCHERS and not launched:
            break
        at += 1
    return at


def _read_shell(container: Mapping[str, Any], words: Sequence[Word], at: int, commands: int) -> VllmCommand | None:
    """The text behind `sh -c`, whatever other options the shell gets."""
    reads_text = False
    while at < len(words) and words[at].text[:1] in ("-", "+"):
        option = words[at].text
        reads_text = reads_text or (option[:1] == "-" and option[:2] != "--" and "c" in option)
        at += 2 if option[-1:] == "o" else 1
    if not reads_text or at >= len(words):
        return None
    place = Place("command", at) if at < commands else Place("args", at - commands)
    raw: str = container[place.field][place.shell_index or 0]
    return _read_text(raw, environment(container), place)


def _read_text(raw: str, variables: Mapping[str, str | None], place: Place) -> VllmCommand | None:
    """Kubernetes fills in first, then the shell."""
    text = expand(raw, {name: f"${{{name}}}" if value is None else value for name, value in variables.items()}).text
    if re.search(r"\bray\s+start\b", text):
        raise Refusal("RayCluster", "starts Ray: vLLM over several nodes is not supported")
    try:
        words = list(shell.split(text, variables))
    except shell.NotPlain:
        if "vllm" not in text:
            return None
        raise Refusal(
            "ShellScript",
            "starts vLLM inside a shell script: write `vllm serve …` as the only command, best as command and args without a shell",
        ) from None
    while words and _ASSIGNMENT.fullmatch(words[0].text):
        del words[0]
    arguments = _server_arguments(words[_after_launchers(words) :])
    return None if arguments is None else VllmCommand(arguments, place)


def _server_arguments(words: Sequence[Word]) -> tuple[Word, ...] | None:
    """What stands behind `vllm serve` or `python -m vllm.entrypoints.openai.api_server`."""
    texts = [word.text for word in words]
    program = PurePosixPath(texts[0]).name if texts else ""
    if program == "vllm" and texts[1:2] == ["serve"]:
        return tuple(words[2:])
    if program == "ray" and texts[1:2] == ["start"]:
        raise Refusal("RayCluster", "starts Ray: vLLM over several nodes is not supported")
    if _PYTHON.fullmatch(program) and "-m" in texts:
        return _module_arguments(words[1 : texts.index("-m")], words[texts.index("-m") + 1 :])
    return None


def _module_arguments(options: Sequence[Word], words: Sequence[Word]) -> tuple[Word, ...] | None:
    """`options` stand before python's `-m`, `words` behind it."""
    texts = [word.text for word in words[:2]]
    if not texts or not all(option.text.startswith("-") and option.text != "-c" for option in options):
        return None
    if texts[0] in _SERVERS:
        return tuple(words[1:])
    return tuple(words[2:]) if texts[0] in _CLI and texts[1:] == ["serve"] else None
