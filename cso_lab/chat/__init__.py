"""Lets a user talk to the model of a run, on the terminal or on a web page of this machine; no conversation is saved.

Read partner.py first (the model), then terminal.py and web.py (the two interfaces) and texts.py (notices and the pointer to human help);
__main__.py is the command.
"""
