"""What people run: recipes, data, metrics and the commands."""

import sys

# While Python looks for the module of `python -m deepavfusion.training.NAME`, and before that imports what it needs,
# "-m" stands in place of the module's path.
if sys.argv[:1] == ["-m"]:
    from .extras import missing_extra

    if message := missing_extra(sys.orig_argv[-len(sys.argv)].rpartition(f"{__name__}.")[2]):
        print(message, file=sys.stderr)
        sys.exit(2)
