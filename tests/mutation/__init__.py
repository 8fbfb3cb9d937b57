"""How often checks fail when the code is wrong: mutants of the formulas, each run by its own tests.

sites: which mutants a topic has. install: one of them in place of the code. by_tests, by_page: does
the topic's test file, or do the cells of its page alone, reject it? calls, forked: what both need.
`make mutate` runs all of it. Leaves out: the machinery, and tests of other topics.
"""
