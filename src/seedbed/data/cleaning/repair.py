"""Mojibake and the like, mended with ftfy (Speer 2019, doi:10.5281/zenodo.2591652).

Mended are text decoded in a wrong encoding, HTML entities, ligatures such as ﬁ, characters of odd width, surrogates,
terminal escapes, stray control characters, composition (NFC) and line ends (\\n). Curly quotes stay: they are right.

ftfy works line by line, and a line of printable ASCII, typographic marks and no entity comes out as it went in. So mode
`suspect` shows it only the other lines, and gives what `all` gives.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

from seedbed.extras import missing

SUSPECT = re.compile(r"[^\t\n -~—–…‘’“”]|&#?[0-9A-Za-z]{1,24};")
"""What every line that ftfy changes holds somewhere. ftfy takes the typographic marks for mojibake only beside other
characters, and those are suspect."""


class Repair:
    """ftfy with our options. Raises ConfigError where ftfy is not installed."""

    def __init__(self, mode: Literal["suspect", "all"]):
        try:
            import ftfy  # heavy, and an extra: only those who ask for repair need it
        except ImportError as error:
            raise missing("clean.repair", "ftfy", "data") from error
        self._fix: Callable[..., str] = ftfy.fix_text
        self._before_markup = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)
        self._after_markup = self._before_markup._replace(unescape_html=False)
        self._mend = self._all if mode == "all" else self._suspect

    def mend(self, text: str, counts: Counter[str]) -> str:
        """The text without what is broken."""
        mended = self._mend(text.replace("\r\n", "\n").replace("\r", "\n"))
        if mended != text:
            counts["mended: repair"] += 1
        return mended

    def _all(self, text: str) -> str:
        return self._fix(text, self._before_markup)

    def _suspect(self, text: str) -> str:
        parts: list[str] = []
        done = 0
        markup = text.find("<")  # from that line on the text may be HTML, and ftfy leaves entities alone
        markup = text.rfind("\n", 0, markup) + 1 if markup >= 0 else len(text)
        while suspect := SUSPECT.search(text, done):
            start = text.rfind("\n", done, suspect.start()) + 1 or done
            end = text.find("\n", suspect.end()) + 1 or len(text)
            options = self._before_markup if start < markup else self._after_markup
            parts += text[done:start], self._fix(text[start:end], options)
            done = end
        return "".join(parts) + text[done:]
