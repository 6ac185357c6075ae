"""The base that every other package builds on and that imports none of them: records, strategies, files, hashes, errors, tables.

Read records.py and strategies.py first; the other modules are small and independent of one another.
"""
