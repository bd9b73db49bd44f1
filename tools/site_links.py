"""A hook of mkdocs: files outside docs/ that a page links to are copied into the site.

GitHub follows a link such as `../params.yaml`, which a site that holds only docs/ could not.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()((?:\.\./)+)([^.)#][^)#]*)")
COPIES = "repository/"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the linked files; mkdocs names those that do not exist, and Markdown, which would be a page."""
    root = Path(config.config_file_path).parent
    pages = files.documentation_pages()
    for name in sorted({link[2] for page in pages for link in _leaving(page, page.content_string)}):
        if (root / name).is_file() and not name.endswith(".md"):
            files.append(File.generated(config, COPIES + name, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ lead to the copies."""
    for link in reversed(list(_leaving(page.file, markdown))):
        markdown = markdown[: link.end(1)].removesuffix("../") + COPIES + markdown[link.end(1) :]
    return markdown


def _leaving(page: File, markdown: str) -> Iterator[re.Match[str]]:
    """The links that lead above docs/."""
    depth = page.src_uri.count("/")
    return (link for link in LINK.finditer(markdown) if link[1].count("/") > depth)
