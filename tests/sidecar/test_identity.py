import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from inference_cache_sidecar.identity import UpstreamIdentity, fingerprint, parse_cards, parse_start_time
from inference_cache_sidecar.upstream import Upstream, UpstreamLimits
from inference_cache_toolkit.standin.server import serving
from inference_cache_toolkit.standin.state import Standin

LIMITS = UpstreamLimits(connect_seconds=1, idle_seconds=0, header_bytes=8190)


@asynccontextmanager
async def watched(url: str, version: str = "v1") -> AsyncIterator[UpstreamIdentity]:
    upstream = Upstream(url, LIMITS)
    await upstream.open()
    identity = UpstreamIdentity(upstream, version)
    running = asyncio.create_task(identity.run())
    try:
        yield identity
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await upstream.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.005)


async def test_upstream_is_confirmed_at_once_and_its_adapters_are_known(standin, standin_url):
    standin.load_adapter("legal", "/adapters/legal")
    async with watched(standin_url) as identity:
        await until(lambda: identity.confirmed)
        assert (identity.root_of("tiny"), identity.root_of("legal"), identity.root_of("x")) == ("/models/tiny", "/adapters/legal", "")


async def test_the_revision_hangs_on_version_server_and_base_models_but_not_on_adapters(standin, standin_url):
    async with watched(standin_url) as one, watched(standin_url, "v2") as other_version:
        await until(lambda: one.confirmed and other_version.confirmed)
        first = one.revision
        assert first != other_version.revision
        standin.load_adapter("a", "/a")
        one.doubt()
        await until(lambda: one.confirmed)
        assert one.revision == first
        standin.restart(root="/models/other")
        one.doubt()
        await until(lambda: one.confirmed)
        assert one.revision != first


async def test_a_changed_start_time_is_seen_by_the_poll(standin, standin_url):
    async with watched(standin_url) as identity:
        await until(lambda: identity.confirmed)
        first, doubts = identity.revision, identity.doubts
        standin.restart(root="/models/other")
        await until(lambda: identity.revision != first)
        assert identity.doubts > doubts


async def test_a_dying_upstream_is_doubted_without_any_request():
    async with serving(Standin()) as url:
        context = watched(url)
        identity = await context.__aenter__()
        await until(lambda: identity.confirmed)
    await until(lambda: not identity.confirmed)
    await context.__aexit__(None, None, None)


async def test_an_upstream_that_wants_a_key_is_unconfirmed_until_a_credential_was_accepted(standin, standin_url):
    standin.api_key = "secret"
    async with watched(standin_url) as identity:
        await until(lambda: standin.calls["/v1/models"] > 0)
        assert not identity.confirmed
        identity.accepted({"Authorization": "Bearer secret"})
        await until(lambda: identity.confirmed)


def test_what_differs_at_every_call_is_no_part_of_the_fingerprint():
    card = '{"data":[{"id":"m","root":"/r","created":%d,"parent":null,"permission":[{"id":"p%d"}]}]}'
    one, two = parse_cards((card % (1, 1)).encode()), parse_cards((card % (2, 2)).encode())
    assert fingerprint(b"v", one) == fingerprint(b"v", two) != fingerprint(b"w", one)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"data":1}', b"nonsense"])
def test_what_is_no_list_of_cards_is_refused(body):
    with pytest.raises(ValueError, match=r"model cards|unexpected|invalid|end of data|str"):
        parse_cards(body)


def test_the_start_time_is_taken_from_its_own_line():
    metrics = (
        b"# HELP process_start_time_seconds Start.\n# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.7e+09\nx 1\n"
    )
    assert parse_start_time(metrics) == b"1.7e+09"
    assert parse_start_time(b"x 1\n") is None
