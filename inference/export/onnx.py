"""Export of a saved model to ONNX, checked against PyTorch on ONNX Runtime.

The graph takes batches of any size, with named inputs and outputs. Which samples lack a modality is given by the inputs
`image_present` and `audio_present`, of the modalities that the model can do without.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch.export import Dim

import deepavfusion
from deepavfusion.auto_deepavfusion import AUTO_MODELS
from deepavfusion_cli.early.outputs import exported
from deepavfusion_cli.errors import BAD_INPUT, FAILED
from deepavfusion_cli.terminal import say

from ..common import load_model, quiet_library
from ..files import check_absent
from ..jobs.progress import plain_output

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra "onnx"
TOLERANCE = 1e-3  # of the largest difference, relative to the largest value of an output
CONFIG_KEY = "config"  # in the metadata of the file
_MODELS = {model.__name__: model for model in AUTO_MODELS.values()}
_CHECKED_BATCHES = (1, 3)  # the graph is traced with another size
_TRACED_BATCH = 2


class ExportError(RuntimeError):
    """Raised if a model cannot be exported, or its graph gives other outputs than the model."""


class _Graph(torch.nn.Module):
    """A model as a function of named tensors, which returns the tensors that depend on the inputs alone."""

    def __init__(self, model: deepavfusion.DeepAVFusionPreTrainedModel):
        super().__init__()
        self.model = model
        self.options = {"return_loss": False} if isinstance(model, deepavfusion.DeepAVFusionForPreTraining) else {}

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs of the model by their names."""
        outputs = self.model(**inputs, **self.options, return_dict=True)
        return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def export(arguments: argparse.Namespace) -> int:
    """Run `deepavfusion export onnx`; returns 0, 1 if the model cannot be exported, 2 if packages are missing."""
    plain_output()
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        install = f"install {'them' if len(missing) > 1 else 'it'} by `pip install {' '.join(missing)}`"
        say(f"deepavfusion export onnx: needs {' and '.join(missing)}; {install}", stream=sys.stderr)
        return BAD_INPUT
    check_absent(exported(arguments), arguments.overwrite)
    try:
        model = load(arguments.model)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with quiet_library():
            difference = export_onnx(model, arguments.output, arguments.opset)
    except ExportError as error:
        say(f"deepavfusion export onnx: {arguments.model}: {error}", stream=sys.stderr)
        return FAILED
    say(f"{type(model).__name__} written to {arguments.output}")
    for name, value in example_inputs(model, 1).items():
        say(f"  {name:<15} ({', '.join(['batch', *map(str, value.shape[1:])])}) {str(value.dtype)[6:]}")
    say(f"largest difference to PyTorch {difference:.0e} of the largest value")
    return 0


def load(origin: str) -> deepavfusion.DeepAVFusionPreTrainedModel:
    """Load a saved model as the class that it was saved from, ready to be exported.

    Raises:
        ExportError: If the class is none of the package's, or there is nothing to export.
        OSError: If there is no such model.
        ValueError: If the model is of another type, or weights are missing.
    """
    names = deepavfusion.DeepAVFusionConfig.get_config_dict(origin)[0].get("architectures") or ["DeepAVFusionModel"]
    if names[0] not in _MODELS:
        raise ExportError(f"it was saved from {names[0]}: expected one of {', '.join(_MODELS)}.")
    model = load_model(_MODELS[names[0]], origin, attn_implementation="sdpa", dtype=torch.float32).eval()
    if getattr(model, "joint_embedding", None) is not None:
        raise ExportError(
            'it was pre-trained with the objective "jepa", which predicts nothing: save its encoder, '
            "`model.deepavfusion`, and export that."
        )
    model.config.output_hidden_states = model.config.output_attentions = False
    return model


def example_inputs(model, batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random inputs of a model, all that its graph takes.

    Args:
        model: From [`load`].
        batch: Number of samples.
        seed: Seed of the values. Even seeds mark all modalities as present, odd ones those of some samples as absent.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        name: torch.randn(batch, *shape, generator=generator) for name, shape in model.config.input_shapes.items()
    }
    for place, name in enumerate(optional_modalities(model)):
        sample = torch.arange(batch)
        # No sample lacks both: the image is absent in every other one, audio in the rest.
        absent = (sample % 2 == place) if seed % 2 else torch.zeros(batch, dtype=torch.bool)
        inputs[f"{name}_present"] = ~absent
    if isinstance(model, deepavfusion.DeepAVFusionForPreTraining):
        for name, patches in zip(("image_noise", "audio_noise"), model.config.num_patches, strict=True):
            inputs[name] = torch.rand(batch, patches, generator=generator)
    return inputs


def optional_modalities(model) -> tuple[str, ...]:
    """The modalities that samples of a model may lack."""
    if isinstance(model, deepavfusion.DeepAVFusionForSourceSeparation):
        return ("image",)
    maps = (deepavfusion.DeepAVFusionForSemanticSegmentation, deepavfusion.DeepAVFusionForSoundLocalization)
    return ("audio",) if isinstance(model, maps) else ("image", "audio")


def export_onnx(model, path: str | Path, opset: int | None = None) -> float:
    """Write a model to an ONNX file; beside it, PATH.data holds the weights of models above 2 GB.

    The file's metadata holds the model's configuration, with the names of its labels, as JSON.

    Args:
        model: From [`load`].
        path: File to write, which replaces an existing one.
        opset: Version of ONNX's operators; by default that of the installed version of torch.

    Returns:
        The largest difference of the checked outputs to those of PyTorch, relative to the largest value of an output.

    Raises:
        ExportError: If the difference is above `TOLERANCE`; nothing is written then.
    """
    graph, inputs, path = _Graph(model), example_inputs(model, _TRACED_BATCH), Path(path)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own parts
        names = list(graph(**inputs))
        batch = Dim("batch", min=1)
        program = torch.onnx.export(
            graph,
            kwargs=inputs,
            dynamic_shapes={"inputs": {name: {0: batch} for name in inputs}},
            input_names=list(inputs),
            output_names=names,
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props[CONFIG_KEY] = json.dumps(model.config.to_diff_dict(), default=str)
    program.model.producer_name, program.model.producer_version = "deepavfusion", deepavfusion.__version__
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        program.save(draft)
        difference = largest_difference(graph, draft)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the outputs of the graph differ from those of PyTorch by {difference:.1e} of their largest value: "
                f"expected at most {TOLERANCE:.0e}."
            )
        for file in sorted(Path(folder).iterdir(), key=lambda file: file == draft):  # the graph last
            os.replace(file, path.parent / file.name)
    return difference


def largest_difference(graph: torch.nn.Module, path: Path) -> float:
    """Largest difference of an ONNX file's outputs to those of a module, relative to the largest value of an output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names, largest = [output.name for output in session.get_outputs()], 0.0
    for seed, batch in enumerate(_CHECKED_BATCHES):
        inputs = example_inputs(graph.model, batch, seed)
        found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            expected = graph(**inputs)
        for name, values in zip(names, found, strict=True):
            want = expected[name].double()
            error = (torch.from_numpy(values).double() - want).abs().max() / want.abs().max().clamp(min=1e-6)
            largest = max(largest, float(error) if error.isfinite() else float("inf"))
    return largest


__all__ = [
    "ExportError",
    "example_inputs",
    "export",
    "export_onnx",
    "largest_difference",
    "load",
    "optional_modalities",
]
