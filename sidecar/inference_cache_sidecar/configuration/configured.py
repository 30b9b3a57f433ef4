"""Which configuration is in force, what of the latest was refused, and what of it waits for a restart. `following` keeps it up to date,
`/status` shows it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from inference_cache_contract.configuration import Configuration, FlushOrder, digest, known_part, read_configuration
from inference_cache_contract.errors import SpecErrors
from inference_cache_sidecar.configuration.cold import held, needs_restart
from inference_cache_sidecar.configuration.file import WatchedFile
from inference_cache_sidecar.errors import whereabouts
from inference_cache_sidecar.settings import ENCRYPTION_KEY_FIELD, Settings, Wanted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConfigurationStatus:
    """As `/status` shows it."""

    digest: str = ""
    """Of the one in force; empty before the first."""
    refused: tuple[str, ...] = ()
    """What is wrong with the latest, where it is not in force."""
    needs_restart: tuple[str, ...] = ()
    """Fields of the one in force that this process cannot take up."""
    ignored: tuple[str, ...] = ()
    """Fields of the one in force that are not known here: the resource is newer than this sidecar."""


class Configured:
    """Reads the file once when made: what is there then, the process is started with. A bad spec is refused whole, but for fields that
    are not known; flush orders are heeded in any case. Until the first good one nothing is cached: nobody knows what the owner wants."""

    def __init__(self, settings: Settings) -> None:
        self._source = settings.configuration
        self._file = None if self._source is None else WatchedFile(self._source.path)
        self._with_store = settings.redis is not None
        self._started: Wanted | None = None
        self.wanted = settings.wanted if self._source is None else _unconfigured(settings)
        """In force."""
        self.digest = ""
        self.refused: tuple[str, ...] = ()
        self.needs_restart: tuple[str, ...] = ()
        self.ignored: tuple[str, ...] = ()
        self._orders: tuple[FlushOrder, ...] = ()
        self.look(_nobody)
        self._unready = self._source is not None and not self.digest
        if self._unready:
            _log.warning("there is no configuration yet that could be in force: nothing is cached until then")
        self._started = self.wanted

    @property
    def status(self) -> ConfigurationStatus:
        return ConfigurationStatus(self.digest, self.refused, self.needs_restart, self.ignored)

    @property
    def orders(self) -> tuple[FlushOrder, ...]:
        """To be executed by this process; those of one that was started without its shared store wait for its successor."""
        withheld = self._unready and self._with_store and self._started is not None and self._started.must_not_share
        return () if withheld else self._orders

    def look(self, use: Callable[[Wanted], None]) -> bool:
        """If the file has changed, give `use` what can be taken up of it, else refuse it; True if something new is in force."""
        text = None if self._file is None else self._file.changed()
        if text is None:
            return False
        try:
            configuration = read_configuration(text)
            self._orders = configuration.flushes
            wanted, ignored = self._wanted(configuration)
            self._in_force(wanted, use)
        except SpecErrors as errors:
            self.refused = tuple(map(str, errors.problems))
            _log.error("the configuration %s is refused: %s", digest(text), "; ".join(self.refused))
            return False
        except Exception as error:
            # An edge: what this process cannot stomach must not be the last that it looks at.
            self.refused = (f"configuration: could not be taken up ({whereabouts(error)})",)
            _log.error("the configuration %s could not be taken up (%s)", digest(text), whereabouts(error))
            return False
        self.refused, self.digest, self.ignored = (), digest(text), ignored
        _log.info("the configuration %s is in force", self.digest)
        if ignored:
            _log.warning("of the configuration %s is not known here, and not heeded: %s", self.digest, ", ".join(ignored))
        return True

    def _wanted(self, configuration: Configuration) -> tuple[Wanted, tuple[str, ...]]:
        """And the fields that are not known. Raises SpecErrors."""
        if self._source is None:
            raise RuntimeError("there is no configuration to be read")
        try:
            return self._source.wanted(configuration), ()
        except SpecErrors as errors:
            known, ignored = known_part(configuration, errors.problems)
            if not ignored:
                raise
        return self._source.wanted(known), ignored

    def _in_force(self, wanted: Wanted, use: Callable[[Wanted], None]) -> None:
        if self._started is not None:
            waiting = tuple(needs_restart(self._started, wanted, with_store=self._with_store))
            wanted = held(self._started, wanted)
            if waiting and waiting != self.needs_restart:
                _log.warning("in force after a restart only: %s", ", ".join(waiting))
            self.needs_restart = waiting
        use(wanted)
        self.wanted = wanted


def _unconfigured(settings: Settings) -> Wanted:
    """What holds until it is known what is wanted: nothing is cached, and nothing shared that may have to be encrypted."""
    wanted = settings.wanted
    may_be_plain = settings.redis is not None and not settings.secrets.encryption_keys and not wanted.must_not_share
    unencrypted = (ENCRYPTION_KEY_FIELD,) if may_be_plain else ()
    return replace(wanted, spec=replace(wanted.spec, mode="Bypass"), missing_secrets=(*wanted.missing_secrets, *unencrypted))


def _nobody(_wanted: Wanted) -> None:
    """Nothing runs yet that could take it up."""
