"""`python -m seedbed` is the command `seedbed`."""

import sys

from seedbed.cli import main

sys.exit(main())
