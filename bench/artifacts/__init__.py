"""Model files over loopback: ours beside cp, curl, boto3, s5cmd and KServe's downloader. Run as `python -m bench.artifacts`."""
