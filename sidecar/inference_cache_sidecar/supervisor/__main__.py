"""`python -m inference_cache_sidecar.supervisor PLAN`: what `launching` turns its process into."""

import logging
import sys

from inference_cache_sidecar.supervisor.plan import parse_plan
from inference_cache_sidecar.supervisor.supervising import supervise


def main() -> int:
    """The exit status."""
    plan = parse_plan(sys.argv[1])
    logging.basicConfig(level=plan.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return supervise(plan)


if __name__ == "__main__":
    sys.exit(main())
