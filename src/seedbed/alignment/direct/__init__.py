"""Learning from judgements of answers themselves, without a reward model."""
