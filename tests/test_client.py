"""The client, blocking and asyncio, against the real server process."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.client import AsyncClient, ClassifyError, Client, ImageLike, Prediction
from tests.pictures import Pixels, encode, on_paper
from tests.server_process import ServerProcess

Digits = tuple[Pixels, Pixels]


@pytest.fixture
def page(digits: Digits) -> Image.Image:
    """The first digit on paper."""
    return on_paper(digits[0][0])


def same_picture(page: Image.Image, folder: Path) -> list[ImageLike]:
    """One picture in every form the client takes."""
    path = folder / "digit.png"
    page.save(path)
    data = path.read_bytes()
    return [
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        page,
        np.asarray(page),
        np.asarray(page.convert("RGBA")),
    ]


def test_every_form_of_an_image_gives_the_same_answer(client: Client, page: Image.Image, tmp_path: Path) -> None:
    predictions = [client.classify(image) for image in same_picture(page, tmp_path)]
    assert isinstance(predictions[0], Prediction)
    assert len(predictions[0].probabilities) == 10
    assert all(prediction == predictions[0] for prediction in predictions)


def test_a_28x28_array_goes_to_the_network_as_it_is(client: Client, digits: Digits) -> None:
    answers = [client.classify(image) for image in digits[0][:20]]
    right = [answer.digit == label for answer, label in zip(answers, digits[1], strict=False)]
    assert sum(right) >= 18
    assert client.classify(255 - digits[0][0]).probabilities != answers[0].probabilities


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((28, 28)), "must be uint8, 0 to 255, not float64 of shape (28, 28)"),
        (np.zeros((2, 3, 4, 5), np.uint8), "must have the shape (height, width), (height, width, 3)"),
        (np.zeros((0, 5), np.uint8), "none of them 0, not (0, 5)"),
        (7, "must be bytes, a path, a PIL image or a uint8 array, not int"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(client: Client, image: Any, text: str) -> None:
    with pytest.raises(TypeError) as error:
        client.classify(image)
    assert text in str(error.value)


def test_a_missing_file_is_the_callers_own_error(client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        client.classify("no such file.png")


def test_a_refused_image_bears_the_servers_words(client: Client) -> None:
    with pytest.raises(ClassifyError) as error:
        client.classify(b"hello")
    assert error.value.code == "INVALID_ARGUMENT"
    assert "no image the server can read" in error.value.message
    assert str(error.value) == f"INVALID_ARGUMENT: {error.value.message}"


def test_a_batch_keeps_order_and_errors_in_place(client: Client, digits: Digits) -> None:
    results = client.classify_batch([encode(digits[0][0]), b"bad", encode(digits[0][1])])
    assert [getattr(result, "digit", None) for result in results] == [digits[1][0], None, digits[1][1]]
    assert isinstance(results[1], ClassifyError)


def test_a_batch_may_be_one_array(client: Client, digits: Digits) -> None:
    results = client.classify_batch(list(digits[0][:50]))
    assert results[7] == client.classify_batch([digits[0][7]])[0]
    assert len(results) == 50


def test_a_batch_of_arrays_and_pictures_is_refused(client: Client, digits: Digits) -> None:
    with pytest.raises(ValueError, match="28x28 arrays or pictures, not both"):
        client.classify_batch([digits[0][0], encode(digits[0][0])])


def test_an_empty_batch_is_refused_by_the_server(client: Client) -> None:
    with pytest.raises(ClassifyError, match="no image; send 1 to"):
        client.classify_batch([])


def test_a_message_over_the_transports_limit_says_what_to_do(client: Client) -> None:
    with pytest.raises(ClassifyError, match="raise the server's --max-message-bytes"):
        client.classify(bytes(17 << 20))


def test_a_stream_takes_all_forms_and_keeps_errors_in_place(
    client: Client, digits: Digits, page: Image.Image, tmp_path: Path
) -> None:
    images: list[ImageLike] = [*same_picture(page, tmp_path), b"bad", digits[0][1]]
    results = list(client.classify_stream(images))
    assert isinstance(results[-2], ClassifyError)
    assert isinstance(results[-1], Prediction)
    assert len(results) == len(images)


def test_a_stream_of_which_only_the_start_is_read(client: Client, digits: Digits) -> None:
    stream = client.classify_stream(digits[0][n % 100] for n in range(100_000))
    assert isinstance(next(stream), Prediction)
    stream.close()
    assert isinstance(client.classify(digits[0][0]), Prediction)


def test_an_error_in_the_callers_iterator_loses_no_answer(client: Client, digits: Digits) -> None:
    def images() -> Iterator[ImageLike]:
        yield digits[0][0]
        yield digits[0][1]
        raise RuntimeError("the camera was unplugged")

    results = []
    with pytest.raises(RuntimeError, match="the camera was unplugged"):
        for result in client.classify_stream(images()):
            results.append(result)
    assert len(results) == 2


def test_the_model_is_described(client: Client) -> None:
    model = client.model()
    assert (model.name, model.version, model.max_batch_images) == ("digits", "1", 1024)
    assert model.providers_got == ("CPUExecutionProvider",)


def test_a_server_that_is_not_there(digits: Digits) -> None:
    with Client("127.0.0.1:1", timeout_s=30, max_attempts=1) as client:
        for call in (
            lambda: client.classify(digits[0][0]),
            lambda: client.classify_batch([digits[0][0]]),
            lambda: list(client.classify_stream([digits[0][0]])),
            client.model,
        ):
            with pytest.raises(ClassifyError) as error:
                call()
            assert error.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "F", "I", "PA", "RGBa", "1", "P"])
def test_pil_images_of_every_mode(client: Client, page: Image.Image, mode: str) -> None:
    steps = {"PA": ["P"], "RGBa": ["RGBA"], "HSV": ["RGB"], "YCbCr": ["RGB"], "CMYK": ["RGB"]}
    for step in steps.get(mode, []):
        page = page.convert(step)
    assert isinstance(client.classify(page.convert(mode)), Prediction)


def test_the_asyncio_client_does_the_same(server: ServerProcess, digits: Digits, page: Image.Image) -> None:
    async def images() -> AsyncIterator[ImageLike]:
        yield page
        yield b"bad"
        yield digits[0][0]
        raise RuntimeError("the camera was unplugged")

    async def scenario() -> None:
        async with AsyncClient(server.grpc_address) as client:
            assert (await client.classify(page)).digit == digits[1][0]
            batch = await client.classify_batch([page, b"bad"])
            assert [type(result) for result in batch] == [Prediction, ClassifyError]
            streamed = []
            with pytest.raises(RuntimeError, match="the camera was unplugged"):
                async for result in client.classify_stream(images()):
                    streamed.append(result)
            assert [type(result) for result in streamed] == [Prediction, ClassifyError, Prediction]
            listed = [result async for result in client.classify_stream([page, digits[0][0]])]
            assert listed[0] == streamed[0]
            assert (await client.model()).version == "1"
            with pytest.raises(ClassifyError, match="INVALID_ARGUMENT"):
                await client.classify(io.BytesIO(b"x").getvalue())

    asyncio.run(scenario())
