"""The Hugging Face classes that compute our architectures: one file a family, and the choice among them."""
