"""Dialogue expansion by tree search (section 3.1). Knows no LLM: it is given four callables and a reward."""
