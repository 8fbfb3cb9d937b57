"""The code that one writes on a whiteboard: short functions of torch alone, a file for each topic.

A page compares each of them with the library's function (`llmref.verify.by_hand`). Leaves out:
validation, options and numerical care beyond what the formula needs; for these see the groups.
"""
