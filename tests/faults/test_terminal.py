"""Names do not reach the terminal or a card as markup, and unknown words are answered with the right ones."""

import io
import json
import logging
import re
import time
import warnings

import pytest
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

import deepavfusion_cli as cli
from deepavfusion.training.config.recipe import RecipeError, load_recipe
from deepavfusion.training.report.tables import Table, aligned, markdown_table, markdown_text
from deepavfusion.training.runs.card import write_card
from deepavfusion.training.tasks import Evaluation
from deepavfusion_cli.boundary import guard
from deepavfusion_cli.options import check_order
from deepavfusion_cli.parser import CommandParser
from deepavfusion_cli.terminal import printable, say, say_again, say_json
from tests.training.runs.test_card import record

HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "title\x1b]0;owned\x07",
    "\x9b31m",
    "over\rwritten",
    "back\b\b\b",
    "line\nbreak",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "\u2028next",
    "not \udcff utf-8",
    "\x7f",
)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_names_are_no_control_sequences(text, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    say(f"0.9  {text}é", stream=stream)
    line = raw.getvalue().decode(encoding)
    assert line.endswith("\n")
    assert not CONTROL.search(line[:-1])


@given(st.text(st.characters(codec=None), max_size=30))
@settings(deadline=None)
def test_any_text_is_a_line_that_says_all_of_it(text):
    shown = printable(text)
    assert not CONTROL.search(shown)
    assert printable(shown) == shown
    assert re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), shown) == re.sub(
        r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text
    )


@pytest.mark.parametrize("text", ["a dog", "日本語 ñ é 🐕‍🦺", "50 % ± 1 – ≤"])
def test_ordinary_names_are_left_as_they_are(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_json_stays_json(text, capsys):
    say_json({"label": text})
    out = capsys.readouterr().out
    assert json.loads(out) == {"label": text}
    assert not CONTROL.search(out[:-1])


@pytest.mark.parametrize("text", HOSTILE)
def test_what_libraries_print_is_no_control_sequence(text, capsys):
    """Log lines, warnings and tracebacks while a command runs, and only then."""
    logged = io.StringIO()
    handler = logging.StreamHandler(logged)
    loggers = [logging.getLogger(name) for name in ("deepavfusion.training.data", "another")]

    def act():
        for logger in loggers:
            logger.warning("%s: not found", text)
            logger.warning(f"{text}: not found")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            shown = warnings.formatwarning(f"{text} is old", UserWarning, "file.py", 1)
        logged.write(shown)
        raise ValueError(text)

    for logger in loggers:
        logger.addHandler(handler)
    before = logging.getLogRecordFactory(), warnings.formatwarning
    try:
        guard("x", act, traceback=True)
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert (logging.getLogRecordFactory(), warnings.formatwarning) == before
    for shown in (logged.getvalue(), capsys.readouterr().err):
        assert not CONTROL.search(shown.replace("\n", ""))
        assert "Traceback" in shown or "is old" in shown
    lines = logged.getvalue().splitlines()
    assert lines[:2] == [f"{printable(text)}: not found"] * 2  # of this package, a message is a line


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_on_the_terminal(text):
    assert not CONTROL.search(aligned([["class", "n"], [text, 1]]).replace("\n", "", 1))


FORGERIES = (
    "x |\n\n# Forged heading",
    "x | forged | cell",
    "x\\| forged",
    "x\n---\nlicense: forged\n---",
    "[click](https://example.com)",
    "![image](https://example.com/x.png)",
    "<script>alert(1)</script>",
    "`code`",
    "x\r## Forged",
    "x\u2028## Forged",
    "```\n## Forged\n```",
)


@pytest.mark.parametrize("label", FORGERIES)
def test_labels_do_not_forge_a_table(label):
    table = markdown_table(["class", "n"], [[label, 1], ["dog", 2]])
    assert len(table.splitlines()) == 4
    row = table.splitlines()[2]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 3
    assert not re.search(r"(?<!\\)[\[\]`]|<", row)


@pytest.mark.parametrize("label", FORGERIES)
def test_labels_do_not_forge_a_card(tmp_path, label):
    """Labels, the names of the model and its folder, and the description of the data."""
    content = record("recognition", data={"name": "folder", "description": f"folder {label}"})
    tables = [Table("Classes", ["class", "n"], [[label, 1]])]
    evaluation = Evaluation("recognition", "How.", {"top1": 0.5}, 12, data=f"folder {label}", tables=tables)
    recipe = load_recipe("finetune", "folder_recognition", ["data.path=x"])
    recipe.run.output_dir = f"runs/{label}"
    recipe.data.eval_split = label
    write_card(tmp_path, label, content, evaluation, recipe)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, metadata, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    headings = ["Use", "Details", "Results", "Intended use", "Limits", "License", "Recipe", "Citation"]
    text = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {0,3}#+ .*", text, re.MULTILINE)[1:] == [f"## {heading}" for heading in headings]
    assert "<script>" not in text
    assert "license: forged" not in re.findall(r"^license: .*$", metadata, re.MULTILINE)
    assert not re.search(r"(?<!\\)\[(click|image)(?<!\\)\]\(", text)
    use = body.partition("```python\n")[2].partition("\n```")[0]
    compile(use, "card", "exec")
    assert ModelCard.load(tmp_path / "README.md").data.get("license") is None


def test_text_that_is_none_stays_readable():
    assert markdown_text("built-in scenes: 12 clips, cIoU@0.5") == "built-in scenes: 12 clips, cIoU@0.5"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["help"], "unknown command 'help'. Did you mean --help?"),
        (["-v"], "unknown option '-v'. Did you mean --version?"),
        (["Pretrain"], "unknown command 'Pretrain'. Did you mean pretrain?"),
        (["fine_tune"], "unknown command 'fine_tune'. Did you mean finetune?"),
        (["--model", "x", "classify", "y"], "option '--model' is before the command: options come after it, "),
        (["\x1b[31m"], "unknown command"),
    ],
)
def test_unknown_first_words(words, message, capsys):
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--lr", "1e-3", "scenes_tiny"], "deepavfusion pretrain scenes_tiny optim.base_lr=1e-3"),
        (["--lr=1e-3", "scenes_tiny"], "deepavfusion pretrain scenes_tiny optim.base_lr=1e-3"),
        (["--batch-size", "8", "mine.yaml"], "deepavfusion pretrain mine.yaml optim.batch_size=8"),
        (["optim.epochs=3", "scenes_tiny"], "deepavfusion pretrain scenes_tiny optim.epochs=3"),
        (["--optim.epochs=3"], "deepavfusion pretrain RECIPE optim.epochs=3"),
        (["--zzzz", "scenes_tiny"], "deepavfusion pretrain scenes_tiny section.key=value"),
    ],
)
def test_options_before_the_recipe(words, right):
    with pytest.raises(RecipeError, match=re.escape(f"which comes first: use `{right}`.")):
        check_order("pretrain", words)


@pytest.mark.parametrize("words", [["scenes_tiny"], ["a=b.yaml"], ["unknown", "optim.epochs=3"]])
def test_recipes_that_come_first_pass(words):
    check_order("pretrain", words)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--modle", "x"], "are required: --model (--modle does not exist; did you mean --model?)\n"),
        (["--top-k", "-3.5"], "are required: --model\n"),
        (["--zzzzzz"], "are required: --model (--zzzzzz does not exist)\n"),
        (
            ["--modle=x", "--topk", "3"],
            "(--modle does not exist; did you mean --model?) (--topk does not exist; did you",
        ),
        (["-model", "x"], "did you mean --model?"),
        (["--topk", "3", "--model", "x"], "did you mean --top-k?"),
        (["--batch_size", "3", "--model", "x"], "did you mean --batch-size?"),
        (["--zzzzzz", "--model", "x"], "unrecognized arguments: --zzzzzz\n"),
        (["--lr", "3", "--model", "x"], "did you mean optim.base_lr?"),
        (["--\x1b[31m", "--model", "x"], "unrecognized arguments: --\\u001b[31m\n"),
    ],
)
def test_unknown_options(words, hint, capsys):
    parser = CommandParser("x")
    for name in ("--model", "--top-k", "--batch-size"):
        parser.add_argument(name, required=name == "--model")
    parser.suggest = lambda word: {"lr": "optim.base_lr"}.get(word)
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert hint in capsys.readouterr().err


def test_what_takes_long_is_said_again_until_it_ends(capsys):
    said = ""
    with say_again("a command: loading ...", seconds=0.02):
        end = time.monotonic() + 60
        while said.count("\n") < 3 and time.monotonic() < end:
            time.sleep(0.02)
            said += capsys.readouterr().err
    assert said.splitlines()[:3] == ["a command: loading ...", *(f"a command: loading ... {s} s" for s in (0.02, 0.04))]
    time.sleep(0.2)
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
