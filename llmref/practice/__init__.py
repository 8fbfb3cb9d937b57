"""Practice: the formulas of the site as one writes them from memory.

The top layer: it may import every group, and no group imports it. Leaves out: derivations, which
are on the pages, and the functions that others call, which are in the groups.
"""
