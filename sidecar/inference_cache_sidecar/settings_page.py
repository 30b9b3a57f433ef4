"""Writes docs/settings.md from the settings' tables: `python -m inference_cache_sidecar.settings_page > docs/settings.md`.

A test keeps the page equal to this.
"""

import sys
from collections.abc import Iterator

from inference_cache_contract.endpoints import ADMIN_TOKEN_VARIABLE, DRAIN, DRAIN_TOKEN_VARIABLE
from inference_cache_contract.spec import Category
from inference_cache_contract.spec_fields import Leaf, members
from inference_cache_contract.spec_kinds import BOOLEAN
from inference_cache_contract.spec_table import SETTINGS, Setting, plain_text
from inference_cache_sidecar.layers import UNUSED
from inference_cache_sidecar.settings import PROCESS_SETTINGS

_HEAD = """\
# Settings of the sidecar

Every setting can be given as a flag, as an environment variable or in the file behind `--spec`, which holds the `spec` of an
`InferenceCache` resource. A flag beats its variable, a variable beats the hot configuration (`--configuration`, read again whenever
it changes), that beats the file, the file beats the default. Of the hot configuration `spec.model.version` is not heeded, and
`semantic.embedder`, `store.redis`, `invalidation` and `features` after a restart only; `/status` says what waits for one.
`inference-cache sidecar --print-config …` shows what comes out of it, in the form of the file.

- **duration**: `24h`, `1h30m`, `5m`, `250ms`, `0s`; a plain number is seconds.
- **bytes**: `512Mi`, `64Ki` (powers of 1024), `1G`, `500M` (powers of 1000); a plain number is bytes.
- **boolean**: `true` or `false`; as a flag `--name` or `--no-name`.
- 0 is a value, never "unset". An empty variable is not set. `Off` may stand unquoted, in the sidecar's file and in the resource.
- A wrong value, an unknown field or a key that stands twice is refused with its path; the sidecar ends with exit status 2.

## The process

| flag | variable | default | |
|---|---|---|---|
"""
_TOKEN = f"""\
| | `{ADMIN_TOKEN_VARIABLE}` | | bearer token of the admin API's writes, which are off without it; no flag, since others could read it |
| | `{DRAIN_TOKEN_VARIABLE}` | | last part of `{DRAIN}/…`, a path of the admin port that ends all caching for as long as this model server \
runs, and is answered when nothing is in flight any more; not there without it |
"""
_CATEGORIES = """
### Items of `spec.semantic.categories`

A request belongs to the first category whose headers all match, or to the one that a trusted caller names in
`x-inference-cache-category`. Behind the flag and the variable the list is JSON.

| field | type | default | |
|---|---|---|---|
"""
_OPERATOR = """
## The operator's fields

Fields of the resource that the operator uses are checked here too, and change nothing. So are these, which this sidecar does not
use yet; it warns when they are set: """


def page() -> str:
    return "".join(_parts())


def _parts() -> Iterator[str]:
    yield _HEAD
    for process in PROCESS_SETTINGS:
        yield f"| `{process.flag}` | `{process.variable}` | {_code(process.default or '')} | {process.help} |\n"
    yield _TOKEN
    heading = ""
    for setting in SETTINGS:
        if setting.names[0] != heading:
            heading = setting.names[0]
            yield _heading(setting)
        yield _row(setting)
    yield _CATEGORIES
    for member in members(Category):
        if isinstance(member, Leaf):
            yield f"| `{member.name}` | {_type(member.kind.name)} | {_default(member)} | {member.help} |\n"
    yield _OPERATOR + ", ".join(f"`spec.{path}`" for path in UNUSED) + ".\n"


def _heading(setting: Setting) -> str:
    title = f"`spec.{setting.names[0]}`: {setting.section_help}" if setting.section_help else "`spec`"
    return f"\n## {title}\n\n| field | type | default | flag, variable | |\n|---|---|---|---|---|\n"


def _row(setting: Setting) -> str:
    flag = setting.flag.replace("--", "--[no-]", 1) if setting.kind is BOOLEAN else setting.flag
    told = setting.help + (f" ({setting.kind.unit})" if setting.kind.unit else "")
    names = f"`{flag}`<br>`{setting.variable}`"
    return f"| `{setting.path}` | {_type(setting.kind.name)} | {_code(setting.default_text)} | {names} | {told} |\n"


def _default(member: Leaf) -> str:
    if member.required:
        return "required"
    return "" if member.default in (None, ()) else _code(plain_text(member.kind.show(member.default)))


def _type(name: str) -> str:
    return name.replace(" | ", ", ")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.stdout.write(page())
