"""What a model wears while its own weights rest: each method as it learns, and as a folder in peft's format."""
