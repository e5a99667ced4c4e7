"""The command line's way in: `headrace`, `python -m headrace`, and `main` for whoever calls it from Python."""

from __future__ import annotations

import sys

from headrace.cli.process import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
