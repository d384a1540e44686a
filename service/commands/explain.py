"""What `digitserve explain` does: a picture in, the way to its answer as a picture out. A client like any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from service.client import Client, Explanation
from service.client.client_channel import PLAINTEXT, Access
from service.commands.classify import one_line
from service.errors import DigitserveError

if TYPE_CHECKING:
    from service.commands.drawing import Row


def explain_file(
    picture: Path, out: Path, part: str, address: str, *, timeout_s: float, access: Access = PLAINTEXT
) -> str:
    """Draw how the server comes to its answer to a picture.

    Args:
        picture: An image file.
        out: The PNG file to write.
        part: "flow" for all of it, or a key of `_rows`.
        address: Of the server.
        timeout_s: Deadline of the call.
        access: What the server wants of its callers.

    Returns:
        The answer in words.

    Raises:
        DigitserveError: matplotlib is missing, a file cannot be read or written, or the server does not answer.
    """
    try:
        from service.commands.drawing import page
        from service.commands.drawing_flow import verdict
    except ImportError:
        raise DigitserveError("matplotlib is not installed; run: pip install 'digitserve[explain]'") from None
    if out.suffix.lower() != ".png":
        raise DigitserveError(f"{out}: the picture is a PNG file; give it a name that ends with .png")
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise DigitserveError(f"{picture}: {error.strerror}") from None
    with Client(address, timeout_s=timeout_s, access=access) as client, one_line(address):
        explained = client.explain(data)
    rows = _rows(explained, part, picture.name)
    if not rows:
        raise DigitserveError(f"the network that answered has nothing to show as {part!r}; try --part flow")
    try:
        out.write_bytes(page(rows))
    except OSError as error:
        raise DigitserveError(f"{out}: {error.strerror}") from None
    return verdict(explained)


def _rows(explained: Explanation, part: str, name: str) -> list[Row]:
    from service.commands import drawing_details, drawing_flow

    if part == "flow":
        return drawing_flow.flow(explained, name)
    draw = {
        "steps": drawing_details.step_rows,
        "convolution": drawing_details.convolution_rows,
        "relu": drawing_details.relu_rows,
        "pooling": drawing_details.pooling_rows,
        "linear": drawing_details.linear_rows,
        "softmax": drawing_details.softmax_rows,
        "occlusion": drawing_details.occlusion_rows,
    }
    return draw[part](explained)
