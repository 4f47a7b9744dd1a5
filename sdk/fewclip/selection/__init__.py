"""Which method serves these images best: candidates, folds, the choice and its explanation.

`candidates` is what can be tried, `cross_validation` evaluates one on images held out, `evaluated`
compares the results. `auto` and `compare` are two schedules over these: `auto` drops what falls
behind and trains the choice on all images; `compare` gives every method its folds and puts the
outcome into words (`recommendation`).
"""
