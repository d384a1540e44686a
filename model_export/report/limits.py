"""What the card says about limits and misuse."""

from __future__ import annotations


def limits(accuracy: float) -> str:
    """Write down what the model cannot do and must not be used for, in Markdown, given its accuracy of 0 to 1."""
    return f"""## Limits and misuse

- **One digit a picture.** It reads no numbers, letters or words, and no digits of other scripts (Arabic-Indic,
  Devanagari, Chinese). Whatever it is shown, it names one of ten digits; look at `rejected`.
- **Other hands than MNIST's.** The writers lived in the United States around 1990. A one with a long upstroke, a seven
  with a bar, a child's or an unsteady hand are rarer there than elsewhere and will be misread more often. How the
  accuracy differs between groups of people is not known: MNIST does not say who wrote what.
- **Other pictures than MNIST's.** Photographs have to be brought into MNIST's form first; where that fails the digit is
  lost. Expect less than the accuracy on the test set, and a confidence that is less well founded.
- **The test set is old.** Since 1998 methods have been found by looking at these 10,000 images. So the accuracy on
  them flatters every model of today a little, this one too.
- **Errors add up.** At {accuracy:.2%} a digit, {1 - accuracy**10:.1%} of the numbers of ten digits contain a mistake,
  and nothing in the number tells where.
- **It can be deceived.** A small change made for the purpose can give a wrong answer with high confidence.
- **The digit score is no guard.** Letters that look like digits (O, l, S, Z), one in seven symbols and two in five
  halves of digits pass. 1 of 100 digits like MNIST's does not, and more of others: see the tables above.
- **Some photographs are read wrongly or rejected.** Of pictures made for it, one in five with a hard, narrow shadow
  across the digit, one in three in the shadow of blinds and three in five with a pen beside the digit are rejected; a
  few of the first are misread with confidence. Rejected are also most digits that touch the printed frame around them.
  In a picture cut out at its ink, strokes thick enough to cover most of it may be taken for the paper.

Do not let it decide alone where a wrong digit harms somebody: payments, ballots, medical forms, doses, examinations.
Have a person look at what is rejected or unsure, add a check that a wrong digit fails (a checksum, a second entry), and
measure it on your own pictures first. It was not made to recognise who wrote something, and must not be used for that.
"""
