"""Dropping repeats: equal texts, nearly equal texts, and lines and paragraphs that stand in several texts.

A worker signs the documents of its unit (`Signer`), the parent compares the signatures of all units
(`find_duplicates`), and each unit is written without what its verdict drops (`Verdicts.of`). Nothing is imported here.
"""
