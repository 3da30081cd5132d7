"""What tests that need a box are marked with."""

import pytest

from seedbed.sandbox.kinds import lacking

boxed = pytest.mark.skipif(lacking() is not None, reason=f"no sandbox: {lacking()}")
