"""The paper's grid: sweeps to be named on the command line (+table=9, +figure=4), and the benchmarks."""
