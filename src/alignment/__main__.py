"""`python -m alignment`, which is also what `accelerate launch -m alignment` runs."""

import sys

from alignment.cli import main

if __name__ == "__main__":
    sys.exit(main())
