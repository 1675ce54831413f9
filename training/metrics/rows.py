"""What the modules of `evaluate` for maps and waveforms share: a sample is scored when it is added, and let go.

`evaluate` keeps all inputs and hands them over as lists of numbers: 5,000 maps of 224 by 224 pixels would take 25 GB.
The numbers that the scores are made of take a few kB a picture instead.
"""

from collections.abc import Sequence


class KeepsRows:
    """
    Goes before `evaluate.Metric` among a class's bases.

    What `evaluate` stores under "predictions" and "references" are then, in place of the inputs, the row of numbers
    and the kind that `_row` makes of every sample; `_compute` gets those. Collecting over several processes works as
    ever. `EXTRAS` names further inputs of every sample, which need not be given.
    """

    EXTRAS: tuple[str, ...] = ()

    def _row(self, index: int, prediction, reference, **extras) -> tuple[Sequence[float], int]:
        """Numbers and kind of one sample; `index` says which, for errors, counted from 0 in this process."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is kept of a sample.")

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Scores a batch of samples and keeps their numbers, not the arrays.

        Raises:
            ValueError: for counts that differ, or samples that cannot be scored; nothing of the batch is kept then.
        """
        unknown = sorted(set(kwargs) - set(self.EXTRAS))
        if unknown:
            raise ValueError(
                f"Inputs {', '.join(unknown)}: expected {_listed('predictions', 'references', *self.EXTRAS)}."
            )
        columns = {"predictions": predictions, "references": references}
        columns |= {name: values for name, values in kwargs.items() if values is not None}
        counts = {name: None if values is None else len(values) for name, values in columns.items()}
        if None in counts.values() or len(set(counts.values())) != 1:
            raise ValueError(f"The numbers of samples are {counts}: expected the same of all.")
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
        """Scores one sample and keeps its numbers; further inputs are named in the singular."""
        extras = {f"{name}s": None if value is None else [value] for name, value in kwargs.items()}
        self.add_batch(predictions=[prediction], references=[reference], **extras)

    def compute(self, *, predictions=None, references=None, **kwargs):
        """The scores of all samples that were added, with those given here.

        Raises:
            ValueError: where there is no sample.
        """
        extras = {name: kwargs.pop(name) for name in self.EXTRAS if name in kwargs}
        if predictions is not None or references is not None or extras:
            self.add_batch(predictions=predictions, references=references, **extras)
        if not len(self):
            raise ValueError("There is nothing to score: no sample was added.")
        return super().compute(**kwargs)  # ty: ignore[missing-attribute]

    def _infer_feature_from_batch(self, batch):
        import datasets  # comes with `evaluate`

        return datasets.Features(
            {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )


def _listed(*names: str) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


__all__ = ["KeepsRows"]
