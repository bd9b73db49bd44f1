"""Uploaded pictures: their size is limited while they arrive, and their content is not trusted."""

from typing import BinaryIO

from fastapi import HTTPException, Request
from PIL import Image, UnidentifiedImageError
from starlette.types import Message

from irra.data.images import FORMATS, MAX_PIXELS

MAX_UPLOAD_BYTES = 10_000_000


def limit_body(request: Request) -> Request:
    """Return the same request, whose body fails with status 413 as soon as it exceeds MAX_UPLOAD_BYTES."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > MAX_UPLOAD_BYTES:
            raise HTTPException(413, f"the picture is larger than {MAX_UPLOAD_BYTES / 1e6:.0f} MB")
        return message

    return Request(request.scope, receive)


def open_picture(file: BinaryIO) -> Image.Image:
    """Open the picture in `file`, without decoding its pixels.

    Raises:
        HTTPException: The file is not a usable picture (status 400).
    """
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise HTTPException(400, f"the picture has more than the {MAX_PIXELS} pixels allowed") from None
    except UnidentifiedImageError:
        raise HTTPException(400, f"this file is not a picture (supported types: {', '.join(FORMATS)})") from None
    except Exception as error:  # Pillow's plugins raise almost any exception on malformed data
        raise HTTPException(400, f"the picture cannot be read: {error or type(error).__name__}") from None
