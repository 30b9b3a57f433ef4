"""Model files onto a node: fetched from mirrors, verified while they stream, kept by content. Nothing of Kubernetes belongs here."""
