"""Blocks of the cache: never lost, never held by two who do not share, found by whoever begins alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seedbed.inference.blocks import Blocks, block_names
from seedbed.model.cache import BLOCK

TEXTS = st.lists(st.integers(0, 3), max_size=4 * BLOCK)


@given(TEXTS, TEXTS)
def test_blocks_have_the_same_name_when_all_up_to_their_end_is_the_same(one, other):
    for number, (name, another) in enumerate(zip(block_names(one), block_names(other), strict=False), start=1):
        assert (name == another) == (one[: number * BLOCK] == other[: number * BLOCK])


def test_a_salt_tells_the_same_text_apart():
    text = [1] * 3 * BLOCK
    assert len(block_names(text)) == 3 and not set(block_names(text, b"a")) & set(block_names(text, b"b"))


def test_what_was_let_go_longest_ago_goes_first_and_of_one_sequence_its_end():
    blocks = Blocks(4)
    first, second = [blocks.take(), blocks.take()], [blocks.take(), blocks.take()]
    for number, block in enumerate(first + second):
        blocks.keep(block, bytes([number]))
    blocks.release(first)
    blocks.release(second)
    assert blocks.take() == first[1] and blocks.share(bytes([1])) is None
    assert blocks.share(bytes([0])) == first[0]


class Sequences(RuleBasedStateMachine):
    """Sequences that come, grow, share and go."""

    @initialize(count=st.integers(1, 6))
    def begin(self, count):
        self.blocks, self.held, self.named = Blocks(count), [], {}

    @rule()
    def take(self):
        block = self.blocks.take()
        if block is None:
            assert len({block for held in self.held for block in held}) == self.blocks.count
        else:
            assert not any(block in held for held in self.held)
            self.named = {name: known for name, known in self.named.items() if known != block}
            self.held.append([block])

    @rule(name=st.sampled_from([b"a", b"b", b"c"]))
    def share(self, name):
        block = self.blocks.share(name)
        assert block == self.named.get(name)
        if block is not None:
            self.held.append([block])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def hold(self, data):
        more = data.draw(st.sampled_from(self.held))
        self.blocks.hold(more)
        self.held.append([*more])

    @precondition(lambda self: self.held)
    @rule(name=st.sampled_from([b"a", b"b", b"c"]), data=st.data())
    def keep(self, name, data):
        block = data.draw(st.sampled_from(self.held))[0]
        self.blocks.keep(block, name)
        if name not in self.named and block not in self.named.values():
            self.named[name] = block

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        self.blocks.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def every_block_is_held_or_available(self):
        if hasattr(self, "blocks"):
            held = {block for each in self.held for block in each}
            assert len(held) + self.blocks.available == self.blocks.count
            for block in range(self.blocks.count):
                assert self.blocks.holders[block] == sum(block in each for each in self.held)


TestSequences = Sequences.TestCase
