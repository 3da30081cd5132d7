"""seedbed grows a language model from raw text to an aligned, served chat model."""

__version__ = "0.1.0"
