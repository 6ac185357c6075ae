"""The four players of the search (appendix A): prompts, reply parsing, the LLM client, and the simulated players."""
