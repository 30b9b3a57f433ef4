"""`python -m inference_cache_toolkit` is the console script, for those who start it with a Python of their choice."""

import sys

from inference_cache_toolkit.main import main

sys.exit(main())
