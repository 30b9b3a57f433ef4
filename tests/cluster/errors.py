"""What can go wrong with a test cluster."""


class ClusterError(Exception):
    """Anything of ours."""


class MissingProgram(ClusterError):
    """A program that the machine must have is not there; the message says what to install."""


class BuildFailed(ClusterError):
    """A compiler said no; the message carries the end of what it said."""


class CommandFailed(ClusterError):
    """kubectl or another command ended with an error; the message carries what it wrote to stderr."""


class NotReady(ClusterError):
    """Something did not come up, or ended, within its time; the message carries the end of its log."""
