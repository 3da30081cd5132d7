"""Linear layers whose weights are kept in fewer bits."""
