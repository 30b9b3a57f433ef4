"""`inference-cache flush`: tells a sidecar, by its admin port, that answers must not be served any more, and shows how far it is."""
