"""A base from scratch, or a finished one trained further: dialogues and prose → a small GPT-2.

`python -m training.pretrain --help`. Importing this package loads nothing; `cli` holds the command.
"""
