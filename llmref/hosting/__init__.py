"""What a site needs beside Sphinx: one build at a time, versions side by side, a printed book.

Nothing here imports Sphinx. lock: builds take turns. citation: how a result is cited. versions: the
hosted site with its releases. release: whether a commit can become one. pdf, browser: the printed
book.
"""
