"""Which results are there already: what each stage's result depends on, and the keys it is found by."""
