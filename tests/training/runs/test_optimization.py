"""Groups, schedule and LARS against the numbers of the published recipes (tests/golden/optim.safetensors)."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from deepavfusion import DeepAVFusionConfig, DeepAVFusionModel
from deepavfusion.training.config.arguments import OptimArguments
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.runs.optimization import (
    Schedule,
    build_optimizer,
    build_scheduler,
    layer_index,
    learning_rate,
    parameter_groups,
    scaled_learning_rate,
    slow_start_factor,
    tower_of,
)
from deepavfusion.training.runs.optimizers import LARS, MuonAdamW

GOLDEN = Path(__file__).parents[2] / "golden" / "optim.safetensors"


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def model():
    config = DeepAVFusionConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        num_fusion_attention_heads=4,
        image_size=64,
        num_mel_bins=64,
        spectrogram_length=96,
        num_fusion_tokens=4,
        num_image_aggregation_tokens=3,
        num_audio_aggregation_tokens=2,
    )
    model = DeepAVFusionModel(config)
    model.image_head = torch.nn.Linear(48, 5)
    return model


# Published names where they differ from ours, in order of application.
PUBLISHED = [
    (r"^(image|audio|fusion)", r"encoder.\1"),
    (r"^encoder\.image_head", "image_head"),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"\.fusion_layers\.", ".fusion_blocks."),
    (r"(image|audio)\.layers\.", r"\1.blocks."),
    (r"layernorm_before|fusion_layernorm", "norm1"),
    (r"image_layernorm", "norm1_img"),
    (r"audio_layernorm", "norm1_aud"),
    (r"layernorm_after", "norm2"),
    (r"(image\.blocks\.\d|audio\.blocks\.\d)\.attention\.[qkv]_proj", r"\1.attn.qkv"),
    (r"attention\.image_attention", "attn.attn_v"),
    (r"attention\.audio_attention", "attn.attn_a"),
    (r"attention\.pair_attention", "attn"),
    (r"(image|audio)_k_proj", "k"),
    (r"(image|audio)_v_proj", "v"),
    (r"v_bias", "v.bias"),
    (r"attn_(.)\.[kv]_proj", r"attn_\1.kv"),
    (r"q_proj", "q"),
    (r"o_proj", "proj"),
    (r"\.attention\.", ".attn."),
    (r"(fusion_blocks\.\d)\.norm1\.", r"\1.norm1_mm."),
]


def published_name(name):
    for pattern, replacement in PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return name


def test_every_parameter_has_the_published_factor_and_decay(golden, model):
    config, _ = golden
    expected = config["lr_scale_and_weight_decay"]
    groups = parameter_groups(model, config["weight_decay"], config["layer_decay"])
    found = {}
    for group in groups:
        for name in group["names"]:
            found.setdefault(published_name(name), set()).add((group["lr_scale"], group["weight_decay"]))
    heads = {"audio_head.weight", "audio_head.bias", "fusion_head.weight", "fusion_head.bias"}
    assert set(found) == set(expected) - heads
    for name, values in found.items():
        assert values == {tuple(expected[name])}, name


def test_groups_hold_every_trainable_parameter_once(model):
    groups = parameter_groups(model, 0.05)
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert {group["lr_scale"] for group in groups} == {1.0}
    model.fusion_tokens.requires_grad_(False)
    try:
        assert "fusion_tokens" not in [n for g in parameter_groups(model, 0.05) for n in g["names"]]
    finally:
        model.fusion_tokens.requires_grad_(True)


def test_layers_and_towers_are_told_by_name():
    assert layer_index("deepavfusion.fusion_tokens", 12) == layer_index("image.patch_embed.projection.bias", 12) == 0
    assert layer_index("deepavfusion.fusion_layers.11.mlp.fc1.weight", 12) == 12
    assert layer_index("deepavfusion.audio.norm.weight", 12) == layer_index("image_decoder.norm.weight", 12) == 13
    assert tower_of("deepavfusion.image.norm.weight") == tower_of("image.layers.0.mlp.fc1.bias") == "image"
    assert tower_of("image_decoder.layers.0.mlp.fc1.weight") is None
    assert tower_of("deepavfusion.fusion_norm.weight") is None


def test_only_the_named_towers_start_slowly(model):
    slow = [n for g in parameter_groups(model, 0.05, slow_towers=("audio",)) if g["slow_start"] for n in g["names"]]
    assert sorted(slow) == sorted(n for n, _ in model.named_parameters() if n.startswith("audio."))
    assert not any(group["slow_start"] for group in parameter_groups(model, 0.05))


def test_schedule_equals_the_published_one(golden):
    config, _ = golden
    arguments = config["schedule_args"]
    parameter = torch.nn.Parameter(torch.zeros(1))
    slow = torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [parameter], "lr_scale": 0.5}, {"params": [slow], "slow_start": True}]
    schedule = Schedule(
        OptimArguments(
            base_lr=arguments["lr"] * 256 / 1000,
            epochs=arguments["epochs"],
            warmup_epochs=arguments["warmup_epochs"],
            tower_warmup_epochs=arguments["pt_warmup_epochs"],
        ),
        num_clips=10_000_000,  # so that the published fractions of epochs are whole steps
        effective_batch=1000,
    )
    factors = build_scheduler(torch.optim.AdamW(groups, lr=1.0), schedule).lr_lambdas
    for epoch, *published in config["schedule"]:
        step = epoch * 10_000
        assert [factor(step) for factor in factors] == pytest.approx(published, abs=1e-15)


def test_schedule_ends_at_the_minimum_and_without_warmup_starts_at_the_top():
    assert learning_rate(10, 1e-3, 10, 2, min_lr=1e-5) == pytest.approx(1e-5)
    assert learning_rate(11, 1e-3, 10, 2, min_lr=1e-5) == pytest.approx(1e-5)
    assert learning_rate(0, 1e-3, 10, 0) == 1e-3
    assert slow_start_factor(0, 0) == 1.0
    assert scaled_learning_rate(1.5e-4, 512) == pytest.approx(3e-4)


def test_the_first_step_of_a_slow_start_has_a_rate():
    optim = OptimArguments(epochs=10, warmup_epochs=0, tower_warmup_epochs=5)
    schedule = Schedule(optim, num_clips=100, effective_batch=10)
    assert 0 < schedule.slow_start(schedule.place(0)) < schedule.slow_start(1)


def test_steps_and_epochs_of_a_schedule():
    schedule = Schedule(OptimArguments(epochs=2.5, warmup_epochs=1, base_lr=0.1), num_clips=100, effective_batch=16)
    assert schedule.total_steps == 16
    assert schedule.steps(1e-9) == 1
    assert schedule.epoch(5) == pytest.approx(0.8)
    assert schedule.peak == pytest.approx(0.1 * 16 / 256)
    assert schedule.slow_start(8) == pytest.approx(1.0, abs=0.01)  # half the epochs


def rates(schedule: Schedule) -> list[float]:
    """Learning rates that the optimizer steps of a run take."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1.0)
    scheduler, found = build_scheduler(optimizer, schedule), []
    for _ in range(schedule.total_steps):
        found += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("warmup", [{}, {"warmup_fraction": 0}, {"warmup_fraction": 0.7}, {"warmup_epochs": 0.4}])
@pytest.mark.parametrize("epochs", [0.5, 1, 3, 10])
@pytest.mark.parametrize("num_clips", [1, 9, 100])
def test_every_step_has_a_rate_and_only_the_first_differs_from_the_published_one(warmup, epochs, num_clips):
    schedule = Schedule(OptimArguments(epochs=epochs, base_lr=1.0, **warmup), num_clips, effective_batch=8)
    found = rates(schedule)
    assert len(found) == schedule.total_steps
    assert found == [schedule.learning_rate(schedule.place(step)) for step in range(len(found))]
    assert found[1:] == [schedule.learning_rate(step) for step in range(1, len(found))]
    assert min(found) > 0
    assert max(found) == schedule.highest <= schedule.peak
    said = [note for note in schedule.notes() if "reaches only" in note]
    assert bool(said) == (schedule.highest < 0.9 * schedule.peak)


def test_the_warmup_follows_the_length():
    assert [OptimArguments(epochs=epochs).warmup for epochs in (1, 10, 100)] == pytest.approx([0.2, 2, 20])
    assert OptimArguments(epochs=10, warmup_fraction=0.1).warmup == 1
    assert OptimArguments(epochs=10, warmup_epochs=4).warmup == 4
    for epochs in (1, 10, 300):
        recipe = load_recipe("finetune", "folder_recognition", [f"optim.epochs={epochs}"])
        assert recipe.optim.warmup == pytest.approx(epochs / 10)


def test_a_schedule_that_cannot_reach_its_peak_says_so():
    def notes(**settings):
        return Schedule(OptimArguments(epochs=4, **settings), num_clips=80, effective_batch=8).notes()

    assert notes() == []
    (note, reached) = notes(warmup_epochs=5)
    assert (
        note == "optim.warmup_epochs=5 is not shorter than optim.epochs=4: the learning rate does not reach its peak."
    )
    assert reached.startswith("In 40 steps, the learning rate reaches only ")
    (note,) = notes(tower_warmup_epochs=4)
    assert "optim.tower_warmup_epochs=4 is not shorter" in note


def test_a_resumed_scheduler_continues_with_the_same_rates():
    schedule = Schedule(OptimArguments(epochs=3), num_clips=40, effective_batch=8)
    optimizers = [torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in range(2)]
    first, second = (build_scheduler(optimizer, schedule) for optimizer in optimizers)
    for _ in range(3):
        optimizers[0].step()
        first.step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        assert first.get_last_lr() == second.get_last_lr()
        optimizers[0].step(), optimizers[1].step()
        first.step()
        second.step()


def test_the_recipe_decides_optimizer_and_rates(model):
    recipe = load_recipe(
        "pretrain", "scenes_tiny", ["model.init_image=mae.pth", "optim.epochs=10", "optim.optimizer=adamw"]
    )
    optimizer = build_optimizer(recipe, model)
    assert type(optimizer) is torch.optim.AdamW
    scheduler = build_scheduler(optimizer, Schedule(recipe.optim, num_clips=640, effective_batch=64))
    for _ in range(20):
        scheduler.step()
    found = {group["slow_start"]: group["lr"] for group in optimizer.param_groups}
    assert set(found) == {False, True}
    assert found[True] == pytest.approx(found[False] * slow_start_factor(2, 5))
    lars = build_optimizer(load_recipe("probe", "scenes_probe", []), model)
    assert type(lars) is LARS


def test_muon_moves_the_matrices_of_layers_and_adamw_the_rest(model):
    optimizer = build_optimizer(load_recipe("pretrain", "scenes_tiny", ["optim.momentum=0.9"]), model)
    assert type(optimizer) is MuonAdamW
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_muon = {names[p] for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    assert by_muon == {name for p, name in names.items() if p.ndim == 2 and "layers." in name}
    # Both kinds take the steps of PyTorch's own optimizers, at one learning rate.
    before = {name: parameter.detach().clone() for parameter, name in names.items()}
    generator = torch.Generator().manual_seed(0)
    for parameter in names:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    build_scheduler(optimizer, Schedule(load_recipe("pretrain", "scenes_tiny", []).optim, 640, 64))
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    optimizer.step()
    for muon in (True, False):
        chosen = [p for p, name in names.items() if (name in by_muon) is muon]
        for parameter in chosen:
            alone = torch.nn.Parameter(before[names[parameter]].clone())
            alone.grad = parameter.grad
            decay = 0.05 if parameter.ndim > 1 else 0.0
            if muon:
                options = {"weight_decay": decay, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
                torch.optim.Muon([alone], lr=1e-3, **options).step()
            else:
                torch.optim.AdamW([alone], lr=1e-3, betas=(0.9, 0.95), weight_decay=decay).step()
            torch.testing.assert_close(parameter.detach(), alone.detach(), rtol=1e-4, atol=1e-6)


def test_lars_steps_equal_the_published_ones(golden):
    config, tensors = golden
    weight = torch.nn.Parameter(tensors["in.lars.weight"].clone())
    bias = torch.nn.Parameter(tensors["in.lars.bias"].clone())
    arguments = config["lars"]
    optimizer = LARS(
        [weight, bias],
        lr=arguments["lr"],
        weight_decay=arguments["weight_decay"],
        momentum=arguments["momentum"],
        trust_coefficient=arguments["trust_coefficient"],
    )
    for step in range(3):
        weight.grad = tensors[f"in.lars.grad_weight_{step}"]
        bias.grad = tensors[f"in.lars.grad_bias_{step}"]
        optimizer.step()
        torch.testing.assert_close(weight.detach(), tensors[f"out.lars.weight_{step}"], rtol=0, atol=1e-6)
        torch.testing.assert_close(bias.detach(), tensors[f"out.lars.bias_{step}"], rtol=0, atol=1e-6)


def test_lars_takes_zero_weights_and_zero_gradients():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    still = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([weight, still], lr=0.1)
    weight.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), -0.1))
    assert torch.equal(still.detach(), torch.ones(2, 2))
    assert not any(math.isnan(x) for x in still.flatten().tolist())
