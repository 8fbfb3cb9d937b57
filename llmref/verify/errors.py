"""What a check raises. Every message starts with the result's id."""


class VerificationError(AssertionError):
    """A check of `result` did not pass."""

    def __init__(self, result: str, message: str) -> None:
        super().__init__(f"{result}: {message}")
        self.result = result


class CheckFailedError(VerificationError):
    """The claim itself is false on what was compared."""


class UndecidedError(VerificationError):
    """Sympy could neither prove that a difference is zero nor find a point where it is not."""


class UnreadableError(VerificationError):
    """The TeX of an equation has no reading, or more than one."""


class WrongVariantPassedError(VerificationError):
    """A named mistake passes the test, so the test could not have caught it."""


class MissingWrongVariantError(VerificationError):
    """The check has no wrong variant: nobody has seen it fail."""


class MissingScopeError(VerificationError):
    """The check does not say what it has compared."""


class ByHandError(VerificationError):
    """The code by hand, its inputs or a mistaken function can show nothing."""


class NanOnlyError(VerificationError):
    """A wrong variant is rejected for a NaN alone, or is expected to be one and gives numbers."""


class ShapeMismatchError(VerificationError):
    """The two sides differ in shape. Nothing is broadcast in a check."""


class TooFewSamplesError(VerificationError):
    """The samples do not show how far their mean may lie from the expected value."""


class NotANumberError(VerificationError):
    """One side holds a NaN."""


class ResultIdError(VerificationError):
    """The id is malformed, or no published result has it."""
