"""A tiny Feast feature repository: written, filled and served. Run with the Python that install_feast.py names:

    feast_repo.py FOLDER PORT [USERS]

Views: `user_stats` of `user_id` (also writable through the push source `user_stats_push`), `item_embeddings` of `item_id`, and
`visits` of both.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float32, Float64, Int64, String

USERS = 200
ITEMS = 100
DIMENSIONS = 8
WRITTEN = "2026-01-02T03:04:05Z"
CONFIGURATION = """
project: tiny
provider: local
registry: {folder}/registry.db
online_store: {{type: sqlite, path: {folder}/online.db}}
entity_key_serialization_version: 3
"""


def main() -> None:
    folder, port = Path(sys.argv[1]), sys.argv[2]
    if not (folder / "feature_store.yaml").exists():
        make(folder, int(sys.argv[3]) if len(sys.argv) > 3 else USERS)
    feast = Path(sys.executable).with_name("feast")
    # By default a worker ends after some 1,000 requests and breaks off the connections it has just accepted.
    served = ["serve", "--host", "127.0.0.1", "--port", port, "--no-access-log", "--max-requests", "0"]
    os.execv(feast, [str(feast), "--chdir", str(folder), *served])


def make(folder: Path, count: int) -> None:
    (folder / "feature_store.yaml").write_text(CONFIGURATION.format(folder=folder))
    (folder / ".feastignore").write_text("*\n")
    store = FeatureStore(repo_path=str(folder))
    source = FileSource(name="files", path=str(folder / "absent.parquet"), timestamp_field="event_timestamp")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    user_fields = {"age": Int64, "score": Float64, "city": String, "clicks": Array(Int64)}
    views = [
        view("user_stats", [user], user_fields, PushSource(name="user_stats_push", batch_source=source)),
        view("item_embeddings", [item], {"embedding": Array(Float32), "title": String}, source),
        view("visits", [user, item], {"seen": Int64}, source),
    ]
    store.apply([user, item, *views])
    store.write_to_online_store("user_stats", users(count))
    store.write_to_online_store("item_embeddings", items())
    store.write_to_online_store("visits", visits())


def view(name: str, entities: list[Entity], fields: dict[str, object], source: object) -> FeatureView:
    schema = [Field(name=field, dtype=kind) for field, kind in fields.items()]
    return FeatureView(name=name, entities=entities, ttl=timedelta(days=3650), schema=schema, source=source, online=True)


def users(count: int) -> pd.DataFrame:
    """Every tenth has no city, and there are scores that JSON has no number for."""
    special = {7: float("nan"), 8: float("inf"), 9: 1e-17}
    rows = [
        {
            "user_id": number,
            "age": 2**60 + number,
            "score": special.get(number, number / 7),
            "city": None if number % 10 == 0 else f"City “{number}”",
            "clicks": [number] * (number % 4),
        }
        for number in range(count)
    ]
    return stamped(rows)


def items() -> pd.DataFrame:
    return stamped(
        {"item_id": f"i{number}", "embedding": [number / 3 + part for part in range(DIMENSIONS)], "title": f"Item {number}"}
        for number in range(ITEMS)
    )


def visits() -> pd.DataFrame:
    return stamped({"user_id": user, "item_id": f"i{item}", "seen": user * item} for user in range(10) for item in range(10))


def stamped(rows: object) -> pd.DataFrame:
    when = pd.Timestamp(WRITTEN)
    return pd.DataFrame(rows).assign(event_timestamp=when, created=when)


if __name__ == "__main__":
    main()
