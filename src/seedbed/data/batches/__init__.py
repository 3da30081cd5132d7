"""From tokens to batches: order, windows, packing, mixtures, curricula, and what is done to rows.

Nothing is imported here: torch comes with the module that needs it.
"""
