"""Places that have files: S3 and HTTP, behind the protocol in `source.py`. Nothing here retries, verifies or writes; the transfer does."""
