"""Learning from what the model itself said and a reward for it: PPO, and GRPO with its family."""
