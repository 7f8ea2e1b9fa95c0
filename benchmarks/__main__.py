"""`python -m benchmarks`. Here: the entry. Not here: anything else (`benchmarks.command`)."""

import sys

from benchmarks.command import main

if __name__ == "__main__":
    sys.exit(main())
