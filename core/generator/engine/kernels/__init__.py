"""The compiled kernels: C for every kind of processor (`step.c`, `rows.c`, `kinds.c` and a header per kind), how it is
built (`build`) and found (`library`)."""
