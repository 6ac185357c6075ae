"""Replies judged by models and by people: Tables 1, 3 and 6. Material drawn from runs, judges asked, answers counted."""
