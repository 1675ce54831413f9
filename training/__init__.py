"""Training and evaluation: commands, recipes, tasks, data sets and metrics."""

import sys

# Report missing packages before the module of `python -m deepavfusion.training.NAME` imports them. While Python locates
# that module, argv[0] is "-m".
if sys.argv[:1] == ["-m"]:
    from .extras import missing_extra

    if message := missing_extra(sys.orig_argv[-len(sys.argv)].rpartition(f"{__name__}.")[2]):
        print(message, file=sys.stderr)
        sys.exit(2)
