"""A typed client of digits.v1, in a blocking and an asyncio form."""

from service.client.client import Access, AsyncClient, ClassifyError, Client, Explanation, ImageLike, Prediction

__all__ = ["Access", "AsyncClient", "ClassifyError", "Client", "Explanation", "ImageLike", "Prediction"]
