"""The JSON API of the page: /api/gallery, search, thumbnails, frames, captions and explain.

The model runs on threads, one per core and at least two, so that the event loop stays free for other requests.
"""

import base64
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache, partial
from typing import Annotated, Any, BinaryIO, TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from starlette.datastructures import UploadFile

from app.web.filters import count_results, describe_filters
from app.web.uploads import MAX_UPLOAD_BYTES, limit_body, open_picture
from irra.footage.scenes import has_scene, read_scene
from irra.search.engine import MAX_QUERY_CHARACTERS, MAX_RESULTS, CaptionHit, Hit, SearchEngine, clean_query
from irra.search.explain import Explanation, explain
from irra.search.gallery import Gallery
from irra.search.pictures import jpeg
from irra.search.tracks import has_tracks
from irra.utils.cores import available_cores
from irra.utils.errors import UserError

T = TypeVar("T")
MAX_TOP = 100  # results on a page
MAX_WHERE_CHARACTERS = 4000
CONDITIONS = 256  # whose results need not be counted again for another page
CAPTIONS = 10  # results for a picture
EXAMPLES = 6
PLAIN_EXAMPLES = (
    "a woman in a red jacket and black trousers",
    "a man with a blue shirt, grey shorts and white shoes",
    "a person with a backpack and a cap",
)
A_YEAR = "private, max-age=31536000, immutable"


class Api:
    """The routes of the API, for one engine."""

    def __init__(self, engine: SearchEngine) -> None:
        self._engine = engine
        self._threads = CapacityLimiter(max(2, available_cores()))
        self._long_work = CapacityLimiter(1)  # leaves threads for searches, and limits memory
        self._version = engine.gallery.version
        self._examples = example_queries(engine.gallery)
        self._filters = describe_filters(engine.gallery)
        self._count = lru_cache(CONDITIONS)(partial(count_results, engine.gallery))

    def router(self) -> APIRouter:
        """All routes, relative to the API's prefix."""
        router = APIRouter()
        router.add_api_route("/gallery", self.gallery)
        router.add_api_route("/search", self.search)
        router.add_api_route("/thumbnails/{row}", self.thumbnail)
        router.add_api_route("/frames/{row}", self.frame)
        router.add_api_route("/captions", self.captions, methods=["POST"])
        router.add_api_route("/explain", self.explain)
        return router

    async def gallery(self) -> dict[str, Any]:
        """Describe the gallery, and suggest sentences to try.

        Only a gallery with metadata has `filters`, as `describe_filters` returns them; `tracks` says whether pictures
        of one track are one result, and `footage` whether there are frames to show.
        """
        gallery = self._engine.gallery
        known = {
            "filters": self._filters,
            "tracks": has_tracks(gallery),
            "footage": bool(gallery.info.footage),
        }
        return {
            "size": gallery.size,
            "captions": gallery.info.captions,
            "kind": gallery.info.kind,
            "image_size": gallery.info.image_size,
            "model": gallery.info.model_fingerprint,
            "version": self._version,
            "max_query_characters": MAX_QUERY_CHARACTERS,
            "max_upload_bytes": MAX_UPLOAD_BYTES,
            "examples": self._examples,
            **(known if self._filters else {}),
        }

    async def search(
        self,
        q: str = "",
        top: Annotated[int, Query(ge=1, le=MAX_TOP)] = 24,
        page: Annotated[int, Query(ge=1)] = 1,
        where: Annotated[str, Query(max_length=MAX_WHERE_CHARACTERS)] = "",
        every_frame: bool = False,
    ) -> dict[str, Any]:
        """Return one page of the pictures that fit a sentence, best first; `total` counts those on all pages.

        `gallery` is the version of the gallery that the rows refer to, `unread` the end of the sentence if cut off.
        With a condition or tracks, `found` counts the results as if there were no limit, and `pictures` those that
        satisfy the condition: of a track, only the best is a result, unless `every_frame`.
        """
        query, condition = clean_query(q), where.strip() or None
        counts = await self._on_thread(self._count, condition, every_frame)
        total = min(counts.results, MAX_RESULTS)
        start, stop = (page - 1) * top, min(page * top, total)
        hits: list[Hit] = []
        if start < stop:
            search = partial(self._engine.search, where=condition, every_frame=every_frame)
            hits = (await self._on_thread(search, [query], stop))[0]
        asked = {"where": condition, "every_frame": every_frame, "found": counts.results, "pictures": counts.pictures}
        return {
            "gallery": self._version,
            "query": query,
            "unread": self._engine.unread(query),
            "page": page,
            "top": top,
            "total": total,
            **(asked if condition or has_tracks(self._engine.gallery) else {}),
            "hits": [hit.document() for hit in hits[start:]],
        }

    async def thumbnail(self, row: int, v: str = "") -> Response:
        """Return a picture as JPEG, which browsers may cache forever if `v` is this gallery's version."""
        self._check_row(row)
        entry = await self._on_thread(self._engine.gallery.entry, row)
        return self._picture(entry.thumbnail, v)

    async def frame(self, request: Request, row: int, v: str = "") -> Response:
        """Return the frame that a picture was found in, with its box, as JPEG; browsers may cache it likewise.

        The status is 404 if there is none, or its file cannot be read.
        """
        self._check_row(row)
        try:
            frame = await self._in_turn(request, self._frame, row)
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        return self._picture(frame, v)

    async def captions(self, request: Request) -> dict[str, Any]:
        """Return the captions nearest to an uploaded picture, which is the field `picture` of a form."""
        if not self._engine.gallery.info.captions:
            raise HTTPException(409, "this gallery has no captions to search")
        async with limit_body(request).form(max_files=1, max_fields=0) as form:
            picture = form.get("picture")
            if not isinstance(picture, UploadFile):
                raise HTTPException(400, "expected a form with a file named `picture`")
            hits = await self._in_turn(request, self._captions_of, picture.file)
        return {"captions": [asdict(hit) for hit in hits]}

    async def explain(self, request: Request, row: int, q: str = "", v: str = "") -> dict[str, Any]:
        """Explain which words and which parts of a picture account for its score.

        `heat` is H x W bytes in base64, row by row, 255 where the picture mattered most. The status is 409 if `v` is
        the version of another gallery.
        """
        query = clean_query(q)
        if v not in ("", self._version):
            raise HTTPException(409, "the gallery has changed since this search; search again")
        self._check_row(row)
        explanation = await self._in_turn(request, self._explain, row, query)
        height, width = explanation.heat.shape
        heat = (explanation.heat * 255).round().astype(np.uint8)
        return {
            "words": [{"word": word, "importance": importance} for word, importance in explanation.words],
            "unread": explanation.unread,
            "heat": {"width": width, "height": height, "values": base64.b64encode(heat.tobytes()).decode()},
        }

    async def _in_turn(self, request: Request, work: Callable[..., T], *arguments: Any) -> T:
        """Run work that costs as much as many searches, one job at a time."""
        async with self._long_work:
            if await request.is_disconnected():  # the user has moved on to another picture
                raise HTTPException(499, "the client has disconnected")
            return await self._on_thread(work, *arguments)

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _check_row(self, row: int) -> None:
        gallery = self._engine.gallery
        if row not in gallery:
            raise HTTPException(404, f"no picture {row}; the gallery has {gallery.size}")

    def _picture(self, data: bytes, version: str) -> Response:
        headers = {"Cache-Control": A_YEAR} if version == self._version else {}
        return Response(data, media_type="image/jpeg", headers=headers)

    def _frame(self, row: int) -> bytes:
        gallery = self._engine.gallery
        (known,) = gallery.metadata([row])
        if not has_scene(gallery.info.footage, known):
            raise UserError(f"picture {row} was not found in a frame or video")
        return jpeg(np.asarray(read_scene(gallery.entry(row).source, known)))

    def _captions_of(self, file: BinaryIO) -> list[CaptionHit]:
        with open_picture(file) as picture:
            return self._engine.captions_of(picture, CAPTIONS)

    def _explain(self, row: int, query: str) -> Explanation:
        model = self._engine.model
        return explain(model, self._engine.gallery.pixels(row, model.spec.image_size), query)


def example_queries(gallery: Gallery) -> list[str]:
    """Return captions spread over the gallery, or fixed sentences if it has none."""
    count = gallery.info.captions
    rows = range(0, count, max(1, -(-count // EXAMPLES)))
    return [gallery.caption(row) for row in rows] or list(PLAIN_EXAMPLES)
