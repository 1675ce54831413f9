"""Mutated media files are read or refused in one line, and never crash, hang or give values that are not finite."""

from collections import Counter

import pytest

from tests.faults.contract import READ, REFUSED, run_command, small_model, try_media, try_mutated_media
from tests.faults.mutations import MUTATIONS, generator, mutate_bytes, small_media

SEED = 11
FEW, MANY = 200, 2000


@pytest.fixture(scope="module")
def files():
    return small_media()


def test_whole_files_are_read(files):
    assert {name: try_media(data) for name, data in files.items()} == dict.fromkeys(files, READ)


def fuzz(files: dict[str, bytes], numbers: range) -> tuple[Counter, Counter]:
    """Outcomes of mutated files, and the mutations that were tried; raises for the first that breaks the contract."""
    outcomes, kinds = Counter(), Counter()
    for number in numbers:
        kind, outcome = try_mutated_media(files, SEED, number)
        outcomes[outcome] += 1
        kinds[kind] += 1
    return outcomes, kinds


def test_mutated_files_are_read_or_refused(files):
    outcomes, kinds = fuzz(files, range(FEW))
    assert set(outcomes) == {READ, REFUSED}  # mutations are neither harmless nor do they destroy everything
    assert min(outcomes.values()) > FEW // 10
    assert kinds.keys() == MUTATIONS.keys()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_mutated_files_are_read_or_refused(files):
    outcomes, _ = fuzz(files, range(FEW, FEW + MANY))
    assert sum(outcomes.values()) == MANY


def test_a_command_goes_on_after_each_mutated_file(files, tmp_path):
    """One line for each file that is refused, an output for each of the others."""
    model = small_model(tmp_path / "model")
    folder = tmp_path / "media"
    folder.mkdir()
    expected = []
    for number in range(12):
        data = mutate_bytes(files["mp4" if number % 2 else "wav"], generator(SEED, number))[1]
        path = folder / f"{number}.mp4"
        path.write_bytes(data)
        expected.append(try_media(data))
    words = [
        "embed",
        "--model",
        str(model),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "out"),
        *map(str, folder.iterdir()),
    ]
    code, _, err = run_command(words)
    assert code == (2 if REFUSED in expected else 0)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == expected.count(READ)
    lines = [line for line in err.splitlines() if line.startswith("deepavfusion embed: ")]
    assert len(lines) == expected.count(REFUSED)
    assert "Traceback" not in err
