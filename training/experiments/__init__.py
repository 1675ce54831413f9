"""Results on the built-in scenes, ablations, baselines and benchmarks; not part of the wheel."""
