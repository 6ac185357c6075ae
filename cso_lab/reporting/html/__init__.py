"""report.html of runs and sweeps: files -> `material` -> one section a module -> one self-contained page."""
