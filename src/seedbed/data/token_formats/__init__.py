"""Token files of other tools, one module a format: `write` makes a split's files, `read` finds documents in them."""
