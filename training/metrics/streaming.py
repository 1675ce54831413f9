"""Streaming base class of the `evaluate` modules for maps and waveforms.

`evaluate` stores all inputs and passes them on as lists of numbers: 5,000 maps of 224 by 224 pixels would take 25 GB.
These modules reduce each sample to its statistics, a few kB per image, when it is added.
"""

from collections.abc import Sequence


class StreamingMetric:
    """Mixin to put before `evaluate.Metric` among the bases of a class.

    `evaluate` then stores, under "predictions" and "references", the statistics and the kind that `_row` computes of
    each sample in place of the inputs; `_compute` receives those. Gathering over processes works as usual.

    Attributes:
        EXTRAS: Names of further, optional inputs of each sample.
    """

    EXTRAS: tuple[str, ...] = ()

    def _row(self, index: int, prediction, reference, **extras) -> tuple[Sequence[float], int]:
        """Statistics and kind of one sample; `index` counts from 0 in this process and is meant for error messages."""
        raise NotImplementedError(f"{type(self).__name__} must implement `_row`.")

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Score a batch of samples and keep their statistics, not the arrays.

        Raises:
            ValueError: For mismatched numbers of samples, or samples that cannot be scored; the batch is then dropped.
        """
        unknown = sorted(set(kwargs) - set(self.EXTRAS))
        if unknown:
            valid = ", ".join(("predictions", "references", *self.EXTRAS))
            raise ValueError(f"Unknown inputs {', '.join(unknown)}. Valid inputs: {valid}.")
        columns = {"predictions": predictions, "references": references}
        columns |= {name: values for name, values in kwargs.items() if values is not None}
        counts = {name: None if values is None else len(values) for name, values in columns.items()}
        if None in counts.values() or len(set(counts.values())) != 1:
            raise ValueError(f"Expected the same number of samples of each input, got {counts}.")
        first = len(self)
        names = [name.removesuffix("s") for name in columns]
        rows = [
            self._row(first + i, **dict(zip(names, sample, strict=True)))
            for i, sample in enumerate(zip(*columns.values(), strict=True))
        ]
        if rows:
            super().add_batch(  # ty: ignore[missing-attribute]
                predictions=[[float(number) for number in numbers] for numbers, _ in rows],
                references=[int(kind) for _, kind in rows],
            )

    def add(self, *, prediction=None, reference=None, **kwargs):
        """Score one sample and keep its statistics; names of further inputs are in the singular."""
        extras = {f"{name}s": None if value is None else [value] for name, value in kwargs.items()}
        self.add_batch(predictions=[prediction], references=[reference], **extras)

    def compute(self, *, predictions=None, references=None, **kwargs):
        """Compute the metric over all samples added before and those given here.

        Raises:
            ValueError: If there are no samples.
        """
        extras = {name: kwargs.pop(name) for name in self.EXTRAS if name in kwargs}
        if predictions is not None or references is not None or extras:
            self.add_batch(predictions=predictions, references=references, **extras)
        if not len(self):
            raise ValueError("Nothing to score: no samples were added.")
        return super().compute(**kwargs)  # ty: ignore[missing-attribute]

    def _infer_feature_from_batch(self, batch):
        import datasets  # comes with `evaluate`

        return datasets.Features(
            {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )


__all__ = ["StreamingMetric"]
