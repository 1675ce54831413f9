"""Hooks of mkdocs: pages that are kept outside of docs/, and files of the repository that pages link to.

Links in README.md and docs/*.md are those of the repository, so that they work where it is browsed. On the site, each
file that is linked, and is no page of docs/, gets a page of its own: Markdown as it is, notebooks as their cells
with the outputs, source as a listing, a folder as a list of its files. All other files are copied.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".cff": "yaml", ".toml": "toml", ".cfg": "ini"}
_FENCE = re.compile(r"^((?P<mark>```+|~~~+).*?^(?P=mark)$)", re.MULTILINE | re.DOTALL)
# As in docstrings of transformers: "(`int`, *optional*, defaults to `8`)" for arguments, "[`Class`]" for references.
_TYPE = re.compile(r"<code>(`[^<]*)</code>")
_REFERENCE = re.compile(r"\[<code>(?:~[\w.]*\.|~)?([\w.]+)</code>\]")
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")


def place(path: str) -> str:
    """Path on the site, before rendering, of a file or folder of the repository."""
    if path in MOVED:
        return MOVED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"files/{path}/index.md"
    suffix = Path(path).suffix
    listed = suffix in LANGUAGES or suffix == ".ipynb" or not suffix
    return f"files/{path}.md" if listed else f"files/{path}"


def targets(markdown: str, origin: str) -> set[str]:
    """Files and folders of the repository that a text links to, as paths in it.

    Args:
        markdown: The text, as Markdown.
        origin: Path in the repository of the file that it is from.
    """
    return {resolve(link, origin) for _, text in _outside_fences(markdown) for link, _ in _LINK.findall(text)} - {None}


def resolve(link: str, origin: str) -> str | None:
    """Path in the repository that a link of a file leads to; None for addresses and for what is not there."""
    if re.match(r"[a-z]+:", link):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def _outside_fences(markdown: str):
    """Parts of a text in their order, as (whether it is a fenced block, text)."""
    end = 0
    for block in _FENCE.finditer(markdown):
        yield False, markdown[end : block.start()]
        yield True, block[0]
        end = block.end()
    yield False, markdown[end:]


def moved(markdown: str, origin: str) -> str:
    """A Markdown file of the repository with the links that it has on the site."""

    def link(found: re.Match) -> str:
        target = resolve(found[1], origin)
        if target is None:
            return found[0]  # mkdocs reports it, unless it is an address
        return posixpath.relpath(place(target), posixpath.dirname(place(origin)) or ".") + (found[2] or "")

    return "".join(text if fenced else _LINK.sub(link, text) for fenced, text in _outside_fences(markdown))


def content(path: str) -> str | bytes:
    """What the site holds for a file or folder of the repository that is no page of docs/."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(child.name for child in file.iterdir() if child.suffix in LANGUAGES and child.is_file())
        items = [f"- [{name}]({posixpath.relpath(place(f'{path}/{name}'), f'files/{path}')})" for name in names]
        return "\n".join([f"# {path}", "", *items, ""])
    if not place(path).endswith(".md"):
        return file.read_bytes()
    if file.suffix in (".md", ".ipynb"):
        return moved(as_markdown(path), path)
    return f"# {path}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8').rstrip()}\n````\n"


def as_markdown(path: str) -> str:
    """A Markdown file or a notebook of the repository as Markdown, with links as they are there."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    blocks = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        blocks.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        blocks += [_output(output) for output in cell.get("outputs", ())]
    return "\n\n".join(blocks) + "\n"


def _output(output: dict) -> str:
    """An output of a notebook's cell: an image, HTML (a player or a table), or text."""
    data = {kind: "".join(content) for kind, content in output.get("data", {}).items()}
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            return f'<img alt="output" src="data:{kind};base64,{data[kind].strip()}">'
    if "text/html" in data:
        # Without blank lines, after which indented HTML would be code.
        return f"<div>{' '.join(data['text/html'].split())}</div>"
    return f"````text\n{(''.join(output.get('text', '')) or data.get('text/plain', '')).rstrip()}\n````"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are kept outside of docs/, and everything that pages link to."""
    waiting = set(MOVED) | {f"docs/{file.src_uri}" for file in files.documentation_pages()}
    done: set[str] = set()
    while waiting - done:
        path = min(waiting - done)
        done.add(path)
        if path.endswith((".md", ".ipynb")):
            waiting |= targets(as_markdown(path), path)
        elif (ROOT / path).is_dir():
            waiting |= {f"{path}/{file.name}" for file in (ROOT / path).iterdir() if file.suffix in LANGUAGES}
        if not path.startswith("docs/"):
            files.append(File.generated(config, place(path), content=content(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of pages of docs/ lead to where their files are on the site."""
    return markdown if page.file.generated_by else moved(markdown, f"docs/{page.file.src_uri}")


def rendered(html: str) -> str:
    """HTML of docstrings, in which types of arguments and references to classes keep no Markdown."""

    def described(found: re.Match) -> str:
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", found[1])
        return re.sub(r"\*([^*<>]+)\*", r"<em>\1</em>", text)

    return _REFERENCE.sub(r"<code>\1</code>", _TYPE.sub(described, html))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Render what Markdown leaves of docstrings on pages of the API."""
    return rendered(html) if page.file.src_uri.startswith("api/") else html
