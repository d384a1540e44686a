"""`digitserve`, but every request message is kept for ever; what `soak --leaking` must notice."""

from __future__ import annotations

from typing import Any

from service import __main__ as command
from service.classifier import Classifier

KEPT: list[Any] = []


def main() -> None:
    """Run the command, with a leak."""
    classify = Classifier.classify

    async def keeping(self: Classifier, images: Any, *others: Any) -> Any:
        KEPT.append([bytearray(image) * 50 for image in images])
        return await classify(self, images, *others)

    Classifier.classify = keeping  # type: ignore[method-assign,assignment]
    command.main()
