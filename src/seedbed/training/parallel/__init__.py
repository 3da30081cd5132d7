"""Training by several processes: how they start, how they divide rows, weights and optimizer state, how they agree."""
