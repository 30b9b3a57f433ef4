"""One entry, two renderings: a plain answer and a stream, made from each other without loss. Pure: no I/O."""
