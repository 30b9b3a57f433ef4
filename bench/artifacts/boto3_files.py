"""What people write: every object below a prefix by boto3's `download_file` as it is by default, four files at a time.

python -m bench.artifacts.boto3_files BUCKET PREFIX FOLDER
"""

import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path

import boto3

FILES_AT_ONCE = 4


def main(bucket: str, prefix: str, folder: str) -> None:
    client = boto3.client("s3")
    keys = [each["Key"] for each in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    with ThreadPool(FILES_AT_ONCE) as pool:
        pool.map(lambda key: client.download_file(bucket, key, str(Path(folder, key.removeprefix(prefix)))), keys, chunksize=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
