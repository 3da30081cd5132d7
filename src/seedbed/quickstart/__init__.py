"""The whole way once, from raw text to a measured chat model, in minutes on a CPU."""
