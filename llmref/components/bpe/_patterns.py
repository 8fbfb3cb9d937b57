r"""Does a pattern that was written for Oniguruma mean the same here?

tokenizers runs the patterns of its files on Oniguruma with the syntax of Ruby. What means the same
in `regex` is listed; all else is refused, since it would cut text in other places in silence: ^ is
another at the end, {1,3}+ is not possessive, classes nest, \h is a digit, and \w lacks the sign ².
"""

import regex

_PROPERTY = (
    r"\\[pP]\{(?:[A-Z][a-z]?|Arabic|Cyrillic|Devanagari|Greek|Han|Hangul|Hebrew|Hiragana|Katakana"
    r"|Latin|Thai)\}"
)
_ESCAPE = rf"{_PROPERTY}|\\[sSdDrnt]|\\[^A-Za-z0-9]"
_CLASS = rf"\[\^?(?:{_ESCAPE}|[^\[\]\\&]|&(?!&))+\]"
# Case is folded alike for the letters of the contractions; İ, ß and ligatures are folded otherwise.
_ANY_CASE = r"\(\?i:(?![^)]*(?:ss|st))['’sdmtlrve|\[\]]+\)"
_ATOM = regex.compile(
    rf"{_ESCAPE}|{_CLASS}|{_ANY_CASE}|\((?:\?(?:[:=!]|<[=!]))?(?!\?)|[)|.$]"
    r"|\{\d+(?:,\d*)?\}(?![+?*])|[?*+][+?]?|[^\\\[\]{}()^$|?*+.]"
)


def portable_pattern(pattern: str, where: str) -> regex.Pattern[str]:
    """The pattern, compiled, if it means the same in `regex` as in Oniguruma.

    Raises: ValueError with the place from which on it may not, or if it does not compile.
    """
    place = 0
    while place < len(pattern):
        atom = _ATOM.match(pattern, place)
        if not atom:
            raise ValueError(
                f"{where}: {pattern[place : place + 12]!r} at character {place} of the pattern is "
                f"not read, since engines differ on it: {pattern!r}"
            )
        place = atom.end()
    try:
        return regex.compile(pattern, regex.MULTILINE)  # $ holds before every line break
    except regex.error as error:
        raise ValueError(f"{where}: not a regular expression: {pattern!r} ({error})") from None
