"""How this machine reaches the Python packages, handed to a build as secrets: nothing of it ends up in an image."""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FILES: Final = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
_VARIABLES: Final = {
    "index-url": ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    "trusted-host": ("PIP_TRUSTED_HOST",),
    "cert": ("PIP_CERT", "SSL_CERT_FILE"),
}
_TIMEOUT: Final = "180"
_AUTHORITY: Final = "/run/secrets/ca.pem"
"""Where a build finds the certificate authority of the index."""


def secrets(folder: Path) -> list[str]:
    """buildah's `--secret` values; the files they name are written into `folder`."""
    told = settings(os.environ, [Path(name).expanduser() for name in _FILES])
    handed = []
    if authority := told.pop("cert", None):
        handed.append(f"id=ca.pem,src={authority}")
        told["cert"] = _AUTHORITY
    file = folder / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in told.items()))
    return [f"id=pip.conf,src={file}", *handed]


def settings(environment: Mapping[str, str], files: list[Path]) -> dict[str, str]:
    """pip's settings by name; a variable beats a file, a later file an earlier one."""
    read = configparser.ConfigParser(interpolation=None)
    read.read(files, encoding="utf-8")
    in_files = dict(read["global"]) if read.has_section("global") else {}
    found = {"timeout": _TIMEOUT} | {name: in_files[name] for name in _VARIABLES if name in in_files}
    for name, variables in _VARIABLES.items():
        given = next((environment[variable] for variable in variables if environment.get(variable)), None)
        if given is not None:
            found[name] = given
    return found
