"""Pictures that come from outside: limited in bytes while they arrive, and never trusted to be pictures."""

from typing import BinaryIO

from fastapi import HTTPException, Request
from PIL import Image, UnidentifiedImageError
from starlette.types import Message

from irra.data.images import FORMATS, MAX_PIXELS

MAX_UPLOAD_BYTES = 10_000_000


def limit_body(request: Request, limit: int = MAX_UPLOAD_BYTES) -> Request:
    """The same request, whose body ends in an error (413) as soon as more than `limit` bytes have come."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        message = await request.receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413, f"the picture is larger than {limit / 1e6:.0f} MB")
        return message

    return Request(request.scope, receive)


def open_picture(file: BinaryIO) -> Image.Image:
    """The picture in `file`, whose pixels are not decoded yet; 400 for a file that is none."""
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise HTTPException(400, f"the picture has more than the {MAX_PIXELS} pixels allowed") from None
    except UnidentifiedImageError:
        raise HTTPException(400, f"this file is not a picture (of type {', '.join(FORMATS)})") from None
    except Exception as error:  # on malformed data Pillow's plugins raise nearly everything there is
        raise HTTPException(400, f"the picture cannot be read: {error or type(error).__name__}") from None
