"""From trees to preference data (section 3.2): pairs, SFT and KTO rows, and the counts of Table 5."""
