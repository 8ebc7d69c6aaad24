"""How the scorer of `training.data.disentangle` was made and measured. None of it is in the installed program."""
