"""What changes the served model puts answers from before out of reach."""

import pytest

from inference_cache_sidecar.adapters import WEIGHT_PATHS

LOAD = "/v1/load_lora_adapter"


async def load(sidecar, name: str, path: str) -> None:
    answer = await sidecar.post(LOAD, {"lora_name": name, "lora_path": path})
    assert answer.status == 200


async def ask(sidecar, model: str):
    while (answer := await sidecar.chat("Who are you?", model=model)).kind == "bypass":
        pass
    return answer


async def test_a_replaced_adapter_never_has_its_old_answers_repeated(sidecar):
    await load(sidecar, "legal", "/adapters/one")
    await ask(sidecar, "legal")
    again = await ask(sidecar, "legal")
    assert again.kind == "exact"
    await load(sidecar, "legal", "/adapters/two")
    replaced = await ask(sidecar, "legal")
    assert replaced.kind == "miss"
    assert replaced.text != again.text


async def test_an_adapter_loaded_again_from_the_same_place_is_not_trusted_to_be_the_same(sidecar):
    await load(sidecar, "legal", "/adapters/one")
    await ask(sidecar, "legal")
    await load(sidecar, "legal", "/adapters/one")
    assert (await ask(sidecar, "legal")).kind == "miss"


async def test_another_models_answers_stay_where_an_adapter_changes(sidecar):
    await ask(sidecar, "tiny")
    await load(sidecar, "legal", "/adapters/one")
    assert (await ask(sidecar, "tiny")).kind == "exact"


@pytest.mark.parametrize("path", sorted(WEIGHT_PATHS))
async def test_weights_changed_in_place_flush_everything(sidecar, standin, path):
    standin.development = True
    await ask(sidecar, "tiny")
    await sidecar.post(path, {})
    assert (await ask(sidecar, "tiny")).kind == "miss"
