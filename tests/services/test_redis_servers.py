"""The Redis servers of the tests: what they promise to the tests that use them."""

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis, RedisCluster, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from tests.services.redis_sentinel import SentinelServers
from tests.services.redis_servers import ClusterServers

from inference_cache_toolkit.processes import StartError
from inference_cache_toolkit.redis_server import RedisServer, redis_server

pytestmark = pytest.mark.services
Start = Callable[..., RedisServer]


def value(server: RedisServer, write: str | None = None) -> str | None:
    """What the server has under one key, after writing it if asked to."""
    with server.client() as client:
        if write is not None:
            client.set("key", write)
        return client.get("key")


def test_a_server_restarts_on_its_port_from_an_older_snapshot_or_empty(start_redis: Start) -> None:
    server = start_redis()
    port = server.port
    value(server, write="old")
    snapshot = server.save()
    value(server, write="new")
    server.restart(snapshot)
    assert (server.port, value(server)) == (port, "old")
    server.restart()
    assert value(server) is None


def test_a_server_told_to_keep_its_keys_keeps_them_through_a_kill(start_redis: Start) -> None:
    server = start_redis(config=["appendonly yes", "appendfsync always"])
    value(server, write="kept")
    server.kill()
    server.restart()
    assert value(server) == "kept"


def test_a_paused_server_answers_after_it_is_resumed(redis: RedisServer) -> None:
    value(redis, write="kept")
    redis.pause()
    redis.resume()
    assert value(redis) == "kept"


def test_a_paused_server_is_stopped_too(start_redis: Start) -> None:
    server = start_redis()
    server.pause()
    server.stop()
    assert not server.is_up


def test_a_missing_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(StartError, match="Debian package redis-server"), redis_server(tmp_path):
        pass


def test_a_setting_that_the_server_refuses_is_shown(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"(?s)ended with status 1.*no-such-setting"), redis_server(tmp_path, config=["no-such-setting 1"]):
        pass


@pytest.mark.parametrize("left", ["killed", "paused", "whole"])
def test_the_next_test_gets_the_shared_server_whole_and_empty(redis: RedisServer, redis_url: str, left: str) -> None:
    assert redis_url == redis.url
    assert value(redis) is None
    value(redis, write="left behind")
    {"killed": redis.kill, "paused": redis.pause, "whole": redis.answers}[left]()


def test_a_failover_and_a_killed_master_each_give_a_new_master_with_the_keys(sentinel: SentinelServers) -> None:
    hosts = [(part.split(":")[0], int(part.split(":")[1])) for part in urlsplit(sentinel.url).netloc.split(",")]
    clients = Sentinel(hosts)
    first = sentinel.master()
    value(first, write="kept")
    second = sentinel.failover()
    assert (second.port, value(second)) != (first.port, None)
    assert clients.discover_master("mymaster") == ("127.0.0.1", second.port)
    sentinel.whole()
    assert sentinel.replicas() == (first,)
    killed = sentinel.kill_master()
    assert sentinel.promoted(killed.port) is first
    assert value(first) == "kept"
    for client in clients.sentinels:
        client.close()


def test_the_next_test_gets_the_sentinels_whole_and_empty(sentinel: SentinelServers) -> None:
    assert all(server.is_up for server in sentinel.servers)
    assert value(sentinel.master()) is None


def test_a_cluster_spreads_keys_over_its_nodes_and_comes_back_from_a_kill(cluster: ClusterServers) -> None:
    keys = [f"key-{number}" for number in range(30)]
    with RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        for key in keys:
            client.set(key, "1")
            assert client.get_node_from_key(key).port == cluster.node_of(key).port
    assert {cluster.node_of(key).port for key in keys} == {node.port for node in cluster.nodes}
    cluster.nodes[1].kill()
    cluster.whole()
    cluster.empty()
    with RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client:
        assert client.dbsize() == 0


def test_the_user_of_the_tls_server_is_held_to_the_keys_of_the_cache(redis_tls: RedisServer) -> None:
    with Redis.from_url(redis_tls.url) as client:
        client.set("inference-cache:a", 1)
        with pytest.raises(NoPermissionError):
            client.set("other", 1)
        with pytest.raises(NoPermissionError):
            client.flushall()


def test_the_tls_server_refuses_strangers_and_is_refused_without_its_authority(redis_tls: RedisServer) -> None:
    authority = redis_tls.folder / "ca.pem"
    once = Retry(NoBackoff(), 0)
    known = {"port": redis_tls.port, "ssl": True, "ssl_ca_certs": str(authority), "retry": once}
    with Redis(**known, password="wrong") as client, pytest.raises(AuthenticationError):
        client.ping()
    with Redis(port=redis_tls.port, ssl=True, retry=once) as client, pytest.raises(RedisConnectionError) as refused:
        client.ping()
    assert isinstance(refused.value.__cause__ or refused.value.__context__, ssl.SSLError)


def test_a_test_of_every_kind_of_servers_gets_the_url_of_an_empty_store(shared_server: str, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.id
    assert urlsplit(shared_server).scheme == {"standalone": "redis"}.get(kind, f"redis+{kind}")
