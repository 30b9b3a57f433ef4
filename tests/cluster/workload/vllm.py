#!/usr/bin/env python3
"""Takes the place of vLLM's command in the pods of these tests: understands its arguments, and answers in no time.

Runs inside a container, where only the packages of the project's images are. Like vLLM, it aborts what is running on SIGTERM. An
answer begins with the path of the model that gave it, so that one of another model is known by sight.
"""

import os
import signal

# Before anything slow: the first process of a container is deaf to what it has no handler for.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass

from inference_cache_toolkit.standin.answers import Answer, Writer
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Pace, Standin


@dataclass(frozen=True)
class Signed(Writer):
    """Says which model it is, and when it says so if it is `dated`; then the same words as ever."""

    signature: str = ""
    dated: bool = False

    def write(self, request, prompt, limit, choice=0):
        said = super().write(request, prompt, limit, choice)
        first = [self.signature, f"{time.time():.3f}"] if self.dated else [self.signature]
        first_token, *others = [*first, *(token.strip() for token in said.tokens)]
        return Answer((first_token, *(f" {token}" for token in others)), said.finish)


class Forgetful(dict):
    """In the place of the answers that the stand-in keeps ready: each is written anew."""

    def __setitem__(self, key, value):
        pass


@dataclass
class SignedStandin(Standin):
    signature: str | None = None
    """None: the model's path."""
    dated: bool = False

    def writer_of(self, model):
        salt = super().writer_of(model).salt
        return Signed(self.writer.tokens, salt, signature=self.signature or salt.rpartition("\0")[2], dated=self.dated)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="vllm")
    made.add_argument("command", choices=["serve"])
    made.add_argument("model", help="a path; another one is another model")
    made.add_argument("--port", type=int, default=8000)
    made.add_argument("--host", default="0.0.0.0")
    made.add_argument("--served-model-name", default="acme")
    made.add_argument("--start-seconds", type=float, default=0.0, help="how long loading the model takes")
    made.add_argument("--first-token", type=float, default=0.02, metavar="SECONDS")
    made.add_argument("--per-token", type=float, default=0.005, metavar="SECONDS")
    made.add_argument("--tokens", type=int, default=12)
    made.add_argument("--signature", help="what answers begin with instead of the path: weights that lie where others lay before")
    made.add_argument("--dated", action="store_true", help="the second word of an answer is when it was given, in seconds since 1970")
    return made


async def main() -> None:
    asked, unknown = parser().parse_known_args()
    print("arguments not heeded:", *unknown, file=sys.stderr)
    time.sleep(asked.start_seconds)
    standin = SignedStandin(models=(asked.served_model_name,), root=asked.model, pace=Pace(asked.first_token, asked.per_token))
    standin.writer, standin.signature, standin.dated = Writer(asked.tokens), asked.signature, asked.dated
    if asked.dated:
        standin.ready = Forgetful()
    async with serving(standin, asked.host, asked.port):
        print(f"serving {asked.model} on {asked.host}:{asked.port}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
