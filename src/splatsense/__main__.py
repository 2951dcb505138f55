"""`python -m splatsense` is the command `splatsense`."""

import sys

from splatsense.cli import main

if __name__ == "__main__":
    sys.exit(main())
