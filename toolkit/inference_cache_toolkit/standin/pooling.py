"""Embeddings, rerank, score, classify and tokenize in vLLM's form. Called by `server` for their paths."""

import base64
import hashlib
import struct
import time
from collections.abc import Mapping
from typing import Any

import orjson

from inference_cache_toolkit.standin.answers import Writer, token_count
from inference_cache_toolkit.standin.prepared import ID, Prepared, RequestError

DIMENSIONS = 8


def _floats(salt: str, text: str, count: int) -> list[float]:
    """`count` numbers in [-1, 1) that hang on the text alone."""
    stream = hashlib.shake_128(f"{salt}\0{text}".encode()).digest(2 * count)
    return [value / 32768 for value in struct.unpack(f"<{count}h", stream)]


def _items(value: object, name: str) -> list[Any]:
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    if isinstance(value, list) and value:
        return value
    raise RequestError(400, "RequestErrorError", f"{name} is required.", name)


def _text(item: object) -> str:
    return item if isinstance(item, str) else orjson.dumps(item).decode()


def _usage(texts: list[str]) -> dict[str, Any]:
    tokens = sum(token_count(text) for text in texts)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}


def embeddings(request: Mapping[str, Any], writer: Writer) -> Prepared:
    asked = [request["messages"]] if request.get("messages") else request.get("input")
    texts = [_text(item) for item in _items(asked, "input")]
    salt, dimensions = f"{writer.salt}{request.get('model')}", int(request.get("dimensions") or DIMENSIONS)
    data = []
    for index, text in enumerate(texts):
        vector: list[float] | str = _floats(salt, text, dimensions)
        if request.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"index": index, "object": "embedding", "embedding": vector})
    head = {"id": ID, "object": "list", "created": int(time.time()), "model": request.get("model")}
    return Prepared("embd-", orjson.dumps({**head, "data": data, "usage": _usage(texts)}))


def rerank(request: Mapping[str, Any], writer: Writer) -> Prepared:
    documents, query = [_text(item) for item in _items(request.get("documents"), "documents")], str(request.get("query", ""))
    ranked = sorted(
        (
            {"index": i, "document": {"text": text, "multi_modal": None}, "relevance_score": _relevance(writer.salt, query, text)}
            for i, text in enumerate(documents)
        ),
        key=lambda result: -float(str(result["relevance_score"])),
    )
    usage = _usage([query, *documents])
    body = {"id": ID, "model": request.get("model"), "usage": usage, "results": ranked[: int(request.get("top_n") or 0) or None]}
    return Prepared("rerank-", orjson.dumps(body))


def _relevance(salt: str, query: str, text: str) -> float:
    return abs(_floats(salt, f"{query}\0{text}", 1)[0])


def score(request: Mapping[str, Any], writer: Writer) -> Prepared:
    left = [_text(item) for item in _items(request.get("text_1"), "text_1")]
    right = [_text(item) for item in _items(request.get("text_2"), "text_2")]
    pairs = zip(left * (len(right) if len(left) == 1 else 1), right, strict=False)
    data = [{"index": i, "object": "score", "score": _relevance(writer.salt, a, b)} for i, (a, b) in enumerate(pairs)]
    head = {"id": ID, "object": "list", "created": int(time.time()), "model": request.get("model")}
    return Prepared("score-", orjson.dumps({**head, "data": data, "usage": _usage(left + right)}))


def classify(request: Mapping[str, Any], writer: Writer) -> Prepared:
    texts = [_text(item) for item in _items(request.get("input"), "input")]
    data = []
    for index, text in enumerate(texts):
        yes = abs(_floats(writer.salt, text, 1)[0])
        label = "yes" if yes > 0.5 else "no"
        data.append({"index": index, "label": label, "probs": [1 - yes, yes], "num_classes": 2})
    head = {"id": ID, "object": "list", "created": int(time.time()), "model": request.get("model")}
    return Prepared("classify-", orjson.dumps({**head, "data": data, "usage": _usage(texts)}))


def tokenize(request: Mapping[str, Any], writer: Writer) -> Prepared:
    prompt = request.get("prompt")
    text = prompt if isinstance(prompt, str) else " ".join(str(m.get("content", "")) for m in request.get("messages") or [])
    tokens = [int.from_bytes(hashlib.sha256(f"{writer.salt}{word}".encode()).digest()[:2], "big") for word in text.split()]
    strings = text.split() if request.get("return_token_strs") else None
    body = {"count": len(tokens), "max_model_len": 2048, "tokens": tokens, "token_strs": strings}
    return Prepared("", orjson.dumps(body))
