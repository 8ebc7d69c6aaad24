"""LoRA training: dialogue files and a base in, an adapter in the registry, with its figures, out.

Knows peft and the Hugging Face trainer. `run.finetune` trains; `pipeline.learn` also evaluates, reports and registers.
A run lives in one folder and may be killed at any moment: `resume=True` continues from its newest complete checkpoint.
"""
