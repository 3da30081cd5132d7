"""What names or betrays a person, masked by a placeholder: <email>, <phone>, <ip>, <card>, <key>.

Each kind first asks whether its mark stands in the text at all, such as an @, which is what makes it cheap. No pattern
takes more than linear time. Names, birthdays and streets stay.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv6Address
from typing import Literal

Kind = Literal["email", "phone", "ip", "card", "key"]


def mask(text: str, kinds: Sequence[Kind], counts: Counter[str]) -> str:
    """The text with a placeholder for each find of the kinds; each find is counted."""
    figures = FIGURES.search(text) is not None
    for kind, masked in MASKS.items():  # in this order, since a card holds what looks like a phone
        if kind in kinds and (figures or kind not in ("card", "phone")):
            text, found = masked(text)
            if found:
                counts[f"masked: {kind}"] += found
    return text


# Keys ---------------------------------------------------------------------------------------------------------------

_WORD = r"(?<![A-Za-z0-9_-])"
KEYS = {
    "PRIVATE KEY": r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:[^-]++|-(?!----))*+-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----|(?:\s*+[A-Za-z0-9+/=]{32,}+)*+)",
    "eyJ": _WORD + r"eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]{8,}+",  # JSON web token
    "AKIA": r"(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])",  # Amazon: of a user, of a session
    "ASIA": r"(?<![A-Z0-9])ASIA[A-Z0-9]{16}(?![A-Z0-9])",
    "aws_secret": r"(?<=aws_secret)(_access_key[\"']?\s{0,9}[:=]\s{0,9}[\"']?)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
    "AWS_SECRET": r"(?<=AWS_SECRET)(_ACCESS_KEY[\"']?\s{0,9}[:=]\s{0,9}[\"']?)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
    "gh": _WORD + r"gh[pousr]_[A-Za-z0-9]{36,}+",  # GitHub
    "github_pat_": _WORD + r"github_pat_\w{22,}+",
    "glpat-": _WORD + r"glpat-[\w-]{20,}+",  # GitLab
    "xox": _WORD + r"xox[abeoprs]-[A-Za-z0-9-]{10,}+",  # Slack
    "xapp-": _WORD + r"xapp-[A-Za-z0-9-]{10,}+",
    "hooks.slack.com": r"(?<=hooks\.slack\.com)(/services/)[A-Za-z0-9/]{20,}+",
    "AIza": _WORD + r"AIza[\w-]{35}(?![\w-])",  # Google
    "ya29.": _WORD + r"ya29\.[\w-]{20,}+",
    "sk-": _WORD + r"sk-(?=[\w-]{0,99}[0-9A-Z])[\w-]{20,}+",  # OpenAI, Anthropic and others
    "k_live_": _WORD + r"[rs]k_live_[A-Za-z0-9]{16,}+",  # Stripe
    "k_test_": _WORD + r"[rs]k_test_[A-Za-z0-9]{16,}+",
    "hf_": _WORD + r"hf_[A-Za-z0-9]{30,}+",  # Hugging Face
    "npm_": _WORD + r"npm_[A-Za-z0-9]{36,}+",
    "pypi-": _WORD + r"pypi-[\w-]{50,}+",
    "SG.": _WORD + r"SG\.[\w-]{16,}+\.[\w-]{16,}+",  # SendGrid
}
"""Patterns of secrets, by a string that each find holds. What stands in a group is kept before the placeholder."""

_KEYS = {mark: re.compile(pattern) for mark, pattern in KEYS.items()}


def mask_keys(text: str) -> tuple[str, int]:
    """Tokens of services by their prefix, JSON web tokens, private keys in PEM."""
    found = 0
    for mark, pattern in _KEYS.items():
        if mark in text:
            text, count = pattern.subn(r"\1<key>" if pattern.groups else "<key>", text)
            found += count
    return text, found


# Addresses ----------------------------------------------------------------------------------------------------------

EMAIL = re.compile(r"(?<![^\W_])[^\W_][\w.+%'-]{0,63}+@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?!\w)")


def mask_emails(text: str) -> tuple[str, int]:
    """E-mail addresses, in any script."""
    if "@" not in text:
        return text, 0
    return EMAIL.subn("<email>", text)


_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
IPV4 = re.compile(rf"(?<![\w.]){_BYTE}(?:\.{_BYTE}){{3}}(?!\.?\w)", re.ASCII)
FOUR_NUMBERS = re.compile(r"\.[0-9]{1,3}\.[0-9]")
TWO_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{1,38}(?:[0-9A-Fa-f]|::)(?![0-9A-Za-z]|:[0-9A-Fa-f])")


def mask_ips(text: str) -> tuple[str, int]:
    """IPv4 addresses, and IPv6 ones of three groups or more. A version number of four parts is masked too."""
    found = 0
    if FOUR_NUMBERS.search(text):
        text, found = IPV4.subn("<ip>", text)
    if TWO_COLONS.search(text):
        text, count = _replace(IPV6, _ipv6_length, "<ip>", text)
        found += count
    return text, found


def _ipv6_length(address: str) -> int:
    try:
        IPv6Address(address)
    except AddressValueError:
        return 0
    return len(address) if sum(map(bool, address.split(":"))) >= 3 else 0  # not the a::b of a program


# Numbers ------------------------------------------------------------------------------------------------------------

FIGURES = re.compile(r"[0-9](?:[ \u00a0.\u2010\u2011\-()/]{0,3}[0-9]){7}")
"""Figures enough for a phone or a card."""

NO_GAPS = str.maketrans("", "", " \u00a0.-")
DOUBLED = str.maketrans("0123456789", "0246813579")
"""For Luhn's check (ISO/IEC 7812-1): of twice a figure, the sum of its figures."""

_GAP = "[ \u00a0.-]"
_FOUR = "[0-9]{4}"
CARD = re.compile(
    rf"(?<![0-9])(?=2[2-7]|[3-6])(?:{_FOUR}({_GAP}){_FOUR}\1{_FOUR}\1{_FOUR}(?:\1[0-9]{{3}})?"
    rf"|{_FOUR}({_GAP})[0-9]{{6}}\2[0-9]{{4,5}}|[0-9]{{13,19}})(?![0-9])"
)


def mask_cards(text: str) -> tuple[str, int]:
    """Numbers of payment cards: the lengths and groups they are written in, a known first figure, Luhn's check."""
    return _replace(CARD, _card_length, "<card>", text)


def _card_length(number: str) -> int:
    if _is_card(number):
        return len(number)
    return (
        19 if len(number) == 23 and _is_card(number[:19]) else 0
    )  # 4111 1111 1111 1111 123: the last three are its code


def _is_card(number: str) -> bool:
    figures = number.translate(NO_GAPS)
    return sum(map(int, figures[-1::-2] + figures[-2::-2].translate(DOUBLED))) % 10 == 0


_DASH = "[ \u00a0.\u2010\u2011-]"
_BETWEEN = r"(?:[ \u00a0]?\(|\)[ \u00a0-]?|[ \u00a0]?[-/\u2010\u2011][ \u00a0]?|[ \u00a0.])"
_END = r"(?![\w-]|\.[0-9])"
PHONE = re.compile(
    # +49 30 123456, +1 (212) 555-0123, 0044 20 7946 0958
    rf"(?<![\w+])(?:\+|00)[1-9][0-9]*+(?:{_BETWEEN}[0-9]++){{0,6}}+"
    # (212) 555-0123, 1-212-555-0123: North America
    rf"|(?<![\w+.-])(?:1{_DASH})?(?:\([2-9][0-9]{{2}}\){_DASH}?|[2-9][0-9]{{2}}{_DASH})[2-9][0-9]{{2}}{_DASH}{_FOUR}{_END}"
    # 01 23 45 67 89: France
    rf"|(?<![\w+.-])0[1-9](?:{_DASH}[0-9]{{2}}){{4}}{_END}"
    # 020 7946 0958, (030) 123456, 0171/1234567: Britain, Germany and others with a 0 before the area
    rf"|(?<![\w+.-])(?:\(0[1-9][0-9]{{1,4}}\){_DASH}?|0[1-9][0-9]{{1,4}}(?:{_DASH}|[ \u00a0]?/[ \u00a0]?))"
    rf"[1-9][0-9]{{2,7}}(?:{_DASH}[0-9]{{2,5}}){{0,3}}{_END}"
)


def mask_phones(text: str) -> tuple[str, int]:
    """Telephone numbers: international ones, and those of North America, France, Britain and Germany in their usual
    groups. Figures without groups are no phone, nor are years, ISBNs and amounts."""
    return _replace(PHONE, _phone_length, "<phone>", text)


def _phone_length(number: str) -> int:
    """As many groups as make 8 to 15 figures (ITU-T E.164); what follows is another number."""
    figures = length = 0
    for group in re.finditer("[0-9]+", number):
        figures += len(group[0])
        if figures > 15:
            break
        if figures >= 8:
            length = group.end()
    return length


def _replace(pattern: re.Pattern[str], measure: Callable[[str], int], placeholder: str, text: str) -> tuple[str, int]:
    """Finds replaced, as far as `measure` says they reach; where that is 0, the search goes on four characters later,
    which is the shortest group of figures of a card."""
    parts: list[str] = []
    done = at = found = 0
    while match := pattern.search(text, at):
        if length := measure(match[0]):
            parts += text[done : match.start()], placeholder
            done = at = match.start() + length
            found += 1
        else:
            at = match.start() + 4
    return "".join(parts) + text[done:], found


MASKS: dict[Kind, Callable[[str], tuple[str, int]]] = {
    "key": mask_keys,
    "email": mask_emails,
    "card": mask_cards,
    "ip": mask_ips,
    "phone": mask_phones,
}
