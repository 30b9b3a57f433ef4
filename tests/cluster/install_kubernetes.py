"""Build what the cluster tests need and no package has: Kubernetes' components, Helm and cert-manager.

`make test` runs it; prints their folders.
"""

import sys

from tests.cluster import binaries
from tests.cluster.errors import ClusterError


def main() -> None:
    try:
        for program in ("etcd", "setpriv"):
            binaries.program(program)
        built = [binaries.component(name) for name in binaries.COMPONENTS]
        sys.stdout.write(f"{built[0].parent}\n{binaries.helm()}\n{binaries.cert_manager()}\n")
    except ClusterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
