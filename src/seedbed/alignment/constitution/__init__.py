"""Answers that a model revises by written principles."""
