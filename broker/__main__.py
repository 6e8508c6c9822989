"""``python -m broker`` is the command ``penstock``."""

import sys

from broker.cli import main

if __name__ == "__main__":
    sys.exit(main())
