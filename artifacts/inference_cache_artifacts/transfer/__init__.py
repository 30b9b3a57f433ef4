"""Bytes from mirrors into partial files: pieces in parallel, hashed as they come, tried again. Nothing here knows of manifests or trees."""
