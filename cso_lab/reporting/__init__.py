"""Reports on runs: metrics.json files become rows, rows become tables and figures beside the paper's, search trees become pages."""
