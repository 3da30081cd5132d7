"""What betrays a person is masked, what only looks like it is not, and no text makes the masks slow."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedbed.data.cleaning.privacy import KEYS, MASKS, mask

A40 = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
MASKED = {
    "email": [
        "jane.doe@example.com",
        "o'neil+news_2@mail.example.co.uk",
        "müller@straße.example.de",
        "a@b.io",
        "1234@example.org",
    ],
    "phone": [
        "+49 30 1234567",
        "+49 (0) 30 123456",
        "+1 (212) 555-0123",
        "+1-212-555-0123",
        "+12125550123",
        "0044 20 7946 0958",
        "+91 98765 43210",
        "(212) 555-0123",
        "(212)555-0123",
        "212-555-0123",
        "212.555.0123",
        "1-212-555-0123",
        "01 23 45 67 89",
        "020 7946 0958",
        "(030) 123456",
        "0171/1234567",
    ],
    "ip": ["192.168.1.1", "8.8.8.8", "255.255.255.255", "2001:0db8:85a3:0000:0000:8a2e:0370:7334", "2001:db8:1::1"],
    "card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "3782 822463 10005",
        "6011000990139424",
        "4222222222222",
    ],
    "key": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1B2" * 10,
        "glpat-" + "a1B2" * 5,
        "xoxb-123456789012-abcDEF",
        "AIza" + "a1B2_" * 7,
        "sk-" + "a1B2" * 12,
        "sk-proj-" + "a1B2" * 12,
        "sk_live_" + "a1B2" * 6,
        "hf_" + "a1B2" * 9,
        "npm_" + "a1B2" * 9,
        "pypi-" + "a1B2" * 20,
        "SG." + "a1B2" * 5 + "." + "a1B2" * 10,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJ",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "b3BlbnNzaC1rZXktdjE" * 3,
    ],
}
AROUND = ["{}", "Write to {}, or not.", "({})", "“{}”", "so: {}.", "\n{}\n", "Это {}!", "one {} two\nthree", "<{}>"]


@pytest.mark.parametrize(("kind", "secret"), [(kind, secret) for kind, secrets in MASKED.items() for secret in secrets])
def test_every_form_is_masked_wherever_it_stands(kind, secret):
    for around in AROUND:
        counts = Counter()
        assert mask(around.format(secret), [kind], counts) == around.format(f"<{kind}>")
        assert counts == {f"masked: {kind}": 1}


@pytest.mark.parametrize("secret", [secret for secrets in MASKED.values() for secret in secrets])
def test_all_kinds_together_leave_nothing_of_a_secret(secret):
    assert mask(f"It is {secret} now", list(MASKS), Counter()) in {f"It is <{kind}> now" for kind in MASKS}


@pytest.mark.parametrize(
    "text",
    [
        "From 1905-1906, and 1914–1918, in 1984.",
        "ISBN 978-0-306-40615-7, 0-306-40615-7, 9780306406157, 0306-40615-7",
        "It cost $1,234,567.89 or 1.234.567,89 €, that is 12 345 678 in all.",
        "On 2020-05-06 at 12:30:45, 06.05.2020, 05/06/2020.",
        "Chapter 1.2.3, verse 3:16, page 100 of 200, in 12.5 minutes.",
        "std::vector, a::b, 10:20:30, 00:1a:2b:3c:4d:5e",
        "3.14159265358979 and 3141592653589794 and 0.123456789 and 2018050607080912",
        "4111111111111112 fails the check, 0000000000000000 is nothing",
        "Python 3.11.7, version v1.2.3.4, 1.2.3.4.5, 256.1.1.1",
        "@mention, a @ b, user@localhost, C@3",
        "task-oriented-and-very-long-compounds-of-words, risk-averse, sk-learn is short",
        "The Project Gutenberg EBook #12345, June 1, 1999, Etext 1234567",
        "-----BEGIN CERTIFICATE-----\nMIID\n-----END CERTIFICATE-----",
        "10 000 000 people, 5 000 000 000 stars, 1000 2000 3000 4000",
    ],
)
def test_what_only_looks_like_it_stays(text):
    counts = Counter()
    assert mask(text, list(MASKS), counts) == text
    assert not counts


def test_only_the_kinds_asked_for_are_masked():
    text = "jane@example.com 8.8.8.8"
    assert mask(text, ["ip"], Counter()) == "jane@example.com <ip>"
    assert mask(text, [], Counter()) == text


def test_a_secret_that_has_no_form_of_its_own_is_told_by_its_name():
    text = mask(f"aws_secret_access_key = {A40}\nAWS_SECRET_ACCESS_KEY='{A40}'\nsha {A40}", ["key"], Counter())
    assert text == f"aws_secret_access_key = <key>\nAWS_SECRET_ACCESS_KEY='<key>'\nsha {A40}"


def test_cards_are_found_among_other_figures():
    counts = Counter()
    text = "1234 4111 1111 1111 1111 12/25, 4111 1111 1111 1111 123, ID4111111111111111"
    assert mask(text, ["card"], counts) == "1234 <card> 12/25, <card> 123, ID<card>"
    assert counts == {"masked: card": 3}


def test_a_number_behind_a_phone_does_not_hide_it():
    assert mask("+44 20 7946 0958 12345 678901", ["phone"], Counter()).startswith("<phone> ")


@given(st.text(st.sampled_from("a1@.:+-() 4\n/_"), max_size=200))
def test_masking_twice_is_masking_once(text):
    masked = mask(text, list(MASKS), Counter())
    if masked == text:
        assert mask(masked, list(MASKS), Counter()) == masked


PIECES = [
    "a@", "a", "1", "((((", "\n", ".", "1.", "1 ", "1-", ":", "1:", "::", "a.", "a@a.", "a@a-", "+1", "+1 ",
    "(0", "0", "00", "4111 ", "1111-", "1.1.1.1", "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n", "eyJ", "eyJaaaaaaaa.", "sk-", "sk-a", "SG.", "SG.aaaaaaaaaaaaaaaa.",
    "212-555-", "020 1234 12 ", "%", "_", "aws_secret_access_key ", "xoxb-", "ab@cd.ef ",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_is_slow(piece):
    text = piece * (200_000 // len(piece)) + " @ " + " ".join(KEYS) + " 1.1.1 12345678 "
    start = time.process_time()
    mask(text, list(MASKS), Counter())
    assert time.process_time() - start < 2, "200 kB; a second a megabyte, and patience for a busy machine"
