"""LoRA training: dialogue files and a base in, an adapter in the registry, with its figures, out.

Knows peft and the Hugging Face trainer. `run.finetune` trains; `pipeline.learn` also judges, reports and registers.
A run lives in one folder and may be killed at any moment: `resume=True` goes on from its newest whole checkpoint.
"""
