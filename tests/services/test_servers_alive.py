"""The real servers themselves: they start, and they are what the other tests take them for."""

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.services

ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "What is a cache?"}], "max_tokens": 5, "temperature": 0}


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def test_vllm_answers_the_official_client(vllm: Any) -> None:
    with client(vllm.url) as api:
        (card,) = api.models.list().data
        answer = api.chat.completions.create(**ASKED)
    assert card.id == vllm.model
    assert card.to_dict()["root"] == str(vllm.root)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


def test_vllm_calls_a_demanded_tool(vllm: Any) -> None:
    shape = {"type": "object", "properties": {"deep": {"type": "boolean"}}, "required": ["deep"], "additionalProperties": False}
    tool: Any = {"type": "function", "function": {"name": "look", "strict": True, "parameters": shape}}
    demanded: Any = {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "look"}}}
    with client(vllm.url) as api:
        answer = api.chat.completions.create(**ASKED | {"max_tokens": 60}, **demanded, logit_bias=vllm.without_white_space())
    assert answer.choices[0].message.tool_calls
    assert answer.choices[0].message.tool_calls[0].to_dict()["function"]["name"] == "look"


def test_nginx_passes_through_to_a_server_behind_it(vllm: Any, run_nginx: Callable[..., str]) -> None:
    with client(run_nginx(vllm.url)) as api:
        assert api.models.list().data[0].id == vllm.model


def test_wrk_is_installed() -> None:
    wrk = shutil.which("wrk")
    assert wrk is not None
    assert "wrk" in subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
