"""Calls with generated arguments: does every public function give a result or say what is wrong?

functions, objects: a valid call of what tests/laws/calls.py leaves out. targets: all that is
public, with its valid calls. values: what may stand in place of a value. draw: which arguments of a
call are replaced, by its number. judge: what a call may end in, and what is a find; documented: the
exceptions from that, each with its reason. forked: limits of time and memory. `make fuzz` runs all.
Leaves out: whether a finite result is right, which the tests of its topic ask.
"""
