"""Talking to the API server and to the sidecars: plain dicts in and out, foreign errors translated. No decision is made here."""
