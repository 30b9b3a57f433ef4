"""List inputs reused item by item: one embeddings, classify, rerank or score request as many single queries. Pure: no I/O."""
