-- After it: nothing is left of one that was refused.
COMMIT
