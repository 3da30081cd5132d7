"""Models that score answers as people would: how they learn, and what they say."""
