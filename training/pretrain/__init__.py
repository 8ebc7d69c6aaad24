"""How the starter model was made, so that anyone can make it again: dialogues and prose → a small GPT-2.

`python -m training.pretrain --help`. Importing this package loads nothing; `cli` holds the command.
"""
