"""Chain-of-Strategy Optimization for emotional support dialogue, as a configurable experiment framework."""

__version__ = "0.1.0"
