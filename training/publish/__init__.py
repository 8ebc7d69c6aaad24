"""An adapter leaves the machine: merged into its base as one folder, or pushed to a Hugging Face repo with its card."""
