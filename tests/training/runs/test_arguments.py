"""Arguments of a run that depend on the device."""

import pytest
import torch

from deepavfusion.inference.precision import fast_bfloat16
from deepavfusion.training.config.recipe import RecipeError, load_recipe
from deepavfusion.training.runs.arguments import settle_compile, settle_precision
from tests.fake_device import fake_device

TINY = ("pretrain", "scenes_tiny")


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "no")]
)
def test_the_cpu_is_asked_for_bfloat16(avx512, amx, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    recipe = load_recipe(*TINY, ["run.cpu=true"])
    assert recipe.optim.mixed_precision == "auto"
    settle_precision(recipe)
    assert recipe.optim.mixed_precision == expected


@pytest.mark.parametrize(
    ("device_type", "supported", "expected"), [("cuda", True, "bf16"), ("cuda", False, "no"), ("mps", True, "no")]
)
def test_accelerators_are_asked_for_bfloat16(device_type, supported, expected, monkeypatch):
    with fake_device(device_type):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported)
        recipe = load_recipe(*TINY, [])
        settle_precision(recipe)
        assert recipe.optim.mixed_precision == expected


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_chosen_precision_stays(precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: precision == "no")
    recipe = load_recipe(*TINY, ["run.cpu=true", f"optim.mixed_precision={precision}"])
    settle_precision(recipe)
    assert recipe.optim.mixed_precision == precision


def test_float16_needs_an_accelerator():
    recipe = load_recipe(*TINY, ["run.cpu=true", "optim.mixed_precision=fp16"])
    with pytest.raises(RecipeError, match="optim.mixed_precision=fp16 needs an accelerator"):
        settle_precision(recipe)


def test_this_machine_answers():
    assert isinstance(fast_bfloat16("cpu"), bool)
    assert not fast_bfloat16("mps")


@pytest.mark.parametrize(("device_type", "expected"), [("cuda", "yes"), ("mps", "no")])
def test_models_are_compiled_on_gpus(device_type, expected):
    with fake_device(device_type):
        for override, compiled in (
            ("run.compile=auto", expected),
            ("run.compile=yes", "yes"),
            ("run.compile=true", "yes"),
            ("run.compile=no", "no"),
        ):
            recipe = load_recipe(*TINY, [override])
            settle_compile(recipe)
            assert recipe.run.compile == compiled
        recipe = load_recipe(*TINY, ["run.compile=auto", "run.cpu=true"])
        settle_compile(recipe)
        assert recipe.run.compile == "no"
