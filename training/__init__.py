"""Training and evaluation: commands, recipes, tasks, data sets and metrics."""

import sys

from deepavfusion_cli.environment import module_run_by_python

# Report missing packages before the module of `python -m deepavfusion.training.NAME` imports them.
if name := module_run_by_python():
    from .extras import missing_extra

    if message := missing_extra(name.rpartition(f"{__name__}.")[2]):
        print(message, file=sys.stderr)
        sys.exit(2)
