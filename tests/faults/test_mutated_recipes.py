"""Recipes with any values for any keys are loaded or refused: what is loaded is within its ranges and can be saved."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepavfusion.training.config.recipe import load_recipe, recipe_names
from deepavfusion.training.config.sections import SECTIONS, section_options
from tests.faults.contract import is_line, run_command, try_recipe
from tests.faults.mutations import generator, mutate_bytes

SEED = 13
KEYS = [(section, option.name) for section in SECTIONS for option in section_options(section)]
RECIPES = sorted({name for command in ("pretrain", "finetune", "probe", "evaluate") for name in recipe_names(command)})
RAW = (
    "nan",
    ".inf",
    "-1e400",
    "1e-4",
    "no",
    "[",
    "{a: 1}",
    "~",
    "!!python/object:os.system x",
    "&a [*a]",
    "\x00",
    "2024-01-01",
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(),
    st.floats(),
    st.sampled_from([0.0, 0.5, 1.0, 10**12, 1e300, -1e-300, "adamw", "scenes", "folder", "muon", "recognition"]),
    st.text(max_size=6),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=4), SCALARS, max_size=2))
WRITTEN = st.one_of(VALUES.map(lambda value: yaml.safe_dump(value, default_flow_style=True)), st.sampled_from(RAW))
OVERRIDE = st.builds(lambda key, text: f"{key[0]}.{key[1]}={text}", st.sampled_from(KEYS), WRITTEN)
# Name of a recipe, and overrides of its options.
CHANGES = st.tuples(st.sampled_from(RECIPES), st.lists(OVERRIDE, min_size=1, max_size=3))

few = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def draw_overrides(count: int) -> list[tuple[str, list[str]]]:
    """Names of recipes with overrides, always the same."""
    drawn = []

    @settings(few, max_examples=count)
    @given(CHANGES)
    def draw(change):
        drawn.append(change)

    draw()
    return drawn


@settings(few, max_examples=60)
@given(CHANGES)
def test_any_values_of_any_keys_are_loaded_or_refused(change):
    try_recipe(*change)


@pytest.mark.slow
@settings(few, max_examples=3000)
@given(CHANGES)
def test_many_values_of_any_keys_are_loaded_or_refused(change):
    try_recipe(*change)


SECTION = st.dictionaries(st.sampled_from([key for _, key in KEYS]), VALUES, max_size=3)
NAMES = st.one_of(st.sampled_from([*SECTIONS, "command"]), SCALARS)


@settings(few, max_examples=60)
@given(content=st.dictionaries(NAMES, st.one_of(VALUES, SECTION), max_size=4))
def test_files_of_any_structure_are_loaded_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "structure.yaml"
    path.write_text(yaml.safe_dump({"command": "pretrain", **content}), encoding="utf-8")
    try_recipe(str(path), [])


def test_mutated_files_are_answered_in_one_line(tmp_path):
    """`--help` of a recipe loads it, and trains nothing."""
    load_recipe("pretrain", "scenes_tiny")
    text = load_recipe("pretrain", "scenes_tiny").to_yaml().encode()
    codes = set()
    for number in range(60):
        kind, data = mutate_bytes(text, generator(SEED, number))
        path = tmp_path / "mutated.yaml"
        path.write_bytes(data)
        code, _, err = run_command(["pretrain", str(path), "--help"])
        codes.add(code)
        assert code in (0, 2), (kind, number)
        assert not err if code == 0 else err.endswith("\n") and is_line(err[:-1]), (kind, number, err)
    assert codes == {0, 2}
