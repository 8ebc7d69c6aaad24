"""Publish an adapter: merge it into its base as one folder, or push it to a Hugging Face repo with its card."""
