"""What operator, sidecar and toolkit must agree on: words, scope, keys, entry format, settings, endpoints.

Standard library only, no I/O. Nothing in here knows of aiohttp, Redis or Kubernetes.
"""
