"""Where a run's numbers go: one file per tracker, each a Lightning logger; ``logger=[csv,wandb]`` chooses.

A logger receives at run time the run's directory and the composed configuration. Beyond Lightning's methods it may have
``finish(status)``, which the train verb calls exactly once, at the very end and in every case, with the status that
``result.json`` gets: Lightning's own ``finalize`` comes after every fit, validate and test, so it cannot close a run.
"""
