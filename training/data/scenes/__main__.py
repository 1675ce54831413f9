"""Write built-in scenes as files, or a sheet of examples: `python -m deepavfusion.training.data.scenes --help`."""

from .dataset import main

main()
