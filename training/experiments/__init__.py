"""Results, ablations and benchmarks of this package; not part of the wheel."""
