"""The shared tier: everything that is kept in, or agreed on through, Redis or Valkey. Knows nothing of HTTP.

A call that fails raises `StoreUnavailable`; whoever calls goes on without the store.
"""
