"""Running code that nobody vouches for, such as a model's: in a box, within limits, with a verdict.

`run` runs a program; `check` runs tests of a program, in a box of their own, so that it cannot forge having passed
them. Both have a `_many`. What is promised and what is not is in docs/sandbox.md.
"""

from seedbed.sandbox.check import check, check_many
from seedbed.sandbox.config import Limits
from seedbed.sandbox.program import run, run_many
from seedbed.sandbox.verdict import Verdict

__all__ = ["Limits", "Verdict", "check", "check_many", "run", "run_many"]
