"""Cleaning: a module for each rule, and `cleaner` that applies them in order.

A rule is a plain function of a text. One that edits gives the text back and counts what it did; one that judges raises
`Dropped` with its reason.
"""
