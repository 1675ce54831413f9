"""`python -m deepavfusion.inference.export`."""

import sys

from deepavfusion.inference.export import main

if __name__ == "__main__":
    sys.exit(main())
