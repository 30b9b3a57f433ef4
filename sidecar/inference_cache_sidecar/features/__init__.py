"""The feature cache: a read-through proxy for a Feast-compatible online feature server. Knows nothing of inference.

Answers are taken apart into cells, one for each row of entities and each feature; only missing cells are asked upstream. What is not
understood, request or answer, passes through as it is. `server` is the only part that knows HTTP.
"""
