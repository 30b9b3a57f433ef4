"""From a command line to a running process: settings, logs, and what becomes of errors. `command` and `webhook_command` call it."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

from inference_cache_contract.errors import SpecErrors
from inference_cache_operator import logs
from inference_cache_operator.errors import OperatorError
from inference_cache_operator.settings import Flag, Settings
from inference_cache_operator.settings_reading import read_settings


def start(program: str, summary: str, flags: Sequence[Flag], argv: Sequence[str], run: Callable[[Settings], None]) -> int:
    """0 after a clean end, 1 where it cannot start or ends by an error, 2 for settings that are refused.

    `run` imports what it needs by itself: --help must not wait for kopf.
    """
    try:
        settings = read_settings(program, summary, flags, argv, os.environ)
    except SpecErrors as errors:
        sys.stderr.writelines(f"{program}: {problem}\n" for problem in errors.problems)
        return 2
    logs.set_up(settings.log_level, settings.log_format)
    return _ended(program, settings, run)


def _ended(program: str, settings: Settings, run: Callable[[Settings], None]) -> int:
    try:
        run(settings)
    except OperatorError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 1
    except Exception:
        # Kubelet starts it anew; why must be in the logs, as a line like the others.
        logging.getLogger(__name__).exception("%s: ended by an error", program)
        return 1
    return 0
