"""LoRA adapters in peft's file format: what their files hold, and what they add to the layers of a model."""
