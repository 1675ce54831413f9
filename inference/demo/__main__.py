"""`python -m deepavfusion.inference.demo`."""

import sys

from deepavfusion.inference.demo import main

if __name__ == "__main__":
    sys.exit(main())
