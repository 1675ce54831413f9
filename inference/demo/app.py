"""The page of the demo: what its models can do with a video, as tabs."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gradio as gr

from ..pages.reconstructions import KINDS, reconstruct
from . import actions
from .events import hidden, in_a_sentence, result, visible
from .markup import about_maps, label_strips, panels, paragraph, verdict
from .models import DemoModel, able_to
from .search import ClipSearch, thumbnail
from .workspace import KEPT_SECONDS, Limits, Workspace

TITLE = "See and hear"
CSS = Path(__file__).parent / "templates" / "demo.css"
_CLEANING = 300  # seconds from one removal of old files to the next
_WAITING = 32  # visitors in the queue, at most
_KINDS = {"its image": "image", "its sound": "audio"}
_AMONG = {"images of the clips": "image", "sounds of the clips": "audio"}
_GALLERY = {
    "show_label": False, "columns": 3, "height": "auto", "object_fit": "contain", "allow_preview": False, "buttons": [],
}  # fmt: skip


class Page:
    """The page.

    Args:
        models: The models.
        examples: Videos that visitors can take.
        clips: Clips that are searched.
        workspace: Folder of the results.
        limits: Bounds on the files of visitors.
    """

    def __init__(
        self,
        models: Sequence[DemoModel],
        examples: Sequence[Path],
        clips: ClipSearch,
        workspace: Workspace,
        limits: Limits,
    ):
        self.models, self.examples, self.clips = models, list(map(str, examples)), clips
        self.workspace, self.limits = workspace, limits
        self.able = {name: able_to(models, name) for name in {ability for m in models for ability in m.abilities}}

    def build(self) -> gr.Blocks:
        """Lay out the page, and connect what it shows with what it does."""
        with gr.Blocks(
            title=TITLE, analytics_enabled=False, delete_cache=(_CLEANING, KEPT_SECONDS), fill_width=True
        ) as page:
            gr.Markdown(f"# {TITLE}")
            names = ", ".join(model.name for model in self.models)
            gr.HTML(paragraph(f"Take an example, or drop a video of your own. Models: {names}.", "demo-soft"))
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._choose_video()
                with gr.Column(scale=3, min_width=300), gr.Tabs():
                    for names, tab in self._tabs():
                        if any(name in self.able for name in names):
                            tab()
            self._connect_video()
        return page.queue(default_concurrency_limit=1, max_size=_WAITING, api_open=False)

    def _tabs(self) -> list[tuple[tuple[str, ...], Callable[[], None]]]:
        """What a model must be able to do for a tab, one of several abilities, and the tab."""
        return [
            (("localize", "segment", "separate"), self._click),
            (("localize",), lambda: self._film("localize", "What sounds", "Show what sounds", "film")),
            (("segment",), lambda: self._film("segment", "Mask", "Mask what is silent", "mask")),
            (("classify",), self._labels),
            (("reconstruct",), self._reconstruct),
            (("search",), self._search),
        ]

    def _choose_video(self) -> None:
        self.video = gr.Video(label="Video", sources=["upload"], elem_id="video", buttons=[])
        if self.examples:
            gr.HTML(paragraph("Examples:"))
            thumbnails = [(thumbnail(path), Path(path).stem.replace("_", " ")) for path in self.examples]
            gallery = gr.Gallery(thumbnails, label="Examples", elem_id="examples", interactive=False, **_GALLERY)
            gallery.select(self._take_example, None, self.video, api_visibility="private")
        self.time = gr.Slider(0, 1, 0.5, step=0.05, label="Time in the video, in seconds", buttons=[])
        self.frame, self.results = None, []

    def _take_example(self, event: gr.SelectData):
        return self.examples[event.index]

    def _connect_video(self) -> None:
        """Let a new video set the time and the frame, and clear results."""
        frame, results = self.frame, self.results

        @in_a_sentence
        def opened(path):
            blank = [None if isinstance(each, gr.HTML) else hidden() for each in results]
            yield [gr.skip(), *([] if frame is None else [hidden()]), *blank]  # also if the video cannot be read
            if path is not None:
                info = self.limits.check(path)
                first, last = info.image_span
                time = round(sum(info.span) / 2, 2)
                shown = [] if frame is None else [visible(actions.shown_frame(path, time))]
                yield [gr.Slider(minimum=round(first, 2), maximum=round(last, 2), value=time), *shown, *blank]

        outputs = [self.time, *([] if frame is None else [frame]), *results]
        self._on(self.video.change, opened, [self.video], outputs, light=True, shown_on=self.video)
        if frame is not None:
            moved = in_a_sentence(lambda path, time: None if path is None else actions.shown_frame(path, time))
            self._on(self.time.input, moved, [self.video, self.time], [frame], light=True)

    def _on(
        self, event: Callable, handler: Callable, inputs: list, outputs: list, light: bool = False, shown_on=None
    ) -> None:
        """Connect an event; models compute one at a time, whatever a visitor starts."""
        shared = {} if light else {"concurrency_id": "models", "concurrency_limit": 1}
        trigger = "always_last" if light else "once"
        event(
            handler,
            inputs,
            outputs,
            trigger_mode=trigger,
            show_progress="minimal" if light else "full",
            show_progress_on=outputs[0] if shown_on is None else shown_on,
            api_visibility="private",
            **shared,
        )

    def _choose(self, models: Mapping[str, DemoModel], label: str):
        """A choice among models; of one, none is shown."""
        names = list(models)
        if len(names) < 2:
            return gr.State(names[0] if names else None)
        return gr.Dropdown(names, value=names[0], label=label, buttons=[])

    def _click(self) -> None:
        finders = self.able.get("localize", {}) | self.able.get("segment", {})
        separators = self.able.get("separate", {})
        alone = "and hear it alone" if separators else "to see whether it sounds"
        with gr.Tab("Click"):
            gr.HTML(paragraph(f"Click a thing in the frame {alone}."))
            self.frame = result(gr.Image, "frame", label="Frame", show_label=False, buttons=[], format="png")
            about = gr.HTML(elem_id="verdict")
            with gr.Row():
                shown = result(gr.Image, "thing", label="The thing", show_label=False, buttons=[], format="png")
                audio = None
                if separators:
                    audio = result(gr.Audio, "alone", label="It alone", type="filepath", buttons=["download"])
            with gr.Row():
                finder = self._choose(finders, "Find things with")
                separator = self._choose(separators, "Separate with")

        @in_a_sentence
        def clicked(path, time, found_by, separated_by, event: gr.SelectData, progress=gr.Progress()):  # noqa: B008
            info = self.limits.check(path)
            heard = audio is not None and info.has_audio
            height, width = actions.shown_frame(path, time).shape[:2]
            place = (event.index[0] / width, event.index[1] / height)
            yield [visible(), None, *([] if audio is None else [visible() if heard else hidden()])]
            progress(0, desc="Looking")
            thing = actions.thing_at(finders.get(found_by), path, time, place)
            mute = audio is not None and not heard
            said = verdict(thing, bool(finders)) + (" The video has no sound to separate." if mute else "")
            first = [visible(actions.outlined(path, time, thing)), paragraph(said)]
            yield [*first, *([] if audio is None else [gr.skip()])]
            if heard:
                image, folder = actions.cut_out(path, time, thing), self.workspace.folder()
                found = actions.separated(
                    separators[separated_by], path, image, folder, lambda done, what: progress(done, desc=what)
                )
                yield [*first, visible(str(found))]

        outputs = [shown, about, *([] if audio is None else [audio])]
        self._on(self.frame.select, clicked, [self.video, self.time, finder, separator], outputs)
        self.results += outputs

    def _film(self, ability: str, title: str, action: str, name: str) -> None:
        models = self.able[ability]
        with gr.Tab(title):
            chosen = self._choose(models, "Model")
            button = gr.Button(action, variant="primary", elem_id=f"{name}_button")
            film = result(gr.Video, name, label=title, buttons=["download"], autoplay=True)
            about = gr.HTML(elem_id=f"{name}_about")

        @in_a_sentence
        def filmed(path, model, progress=gr.Progress()):  # noqa: B008
            self.limits.check(path)
            yield [visible(), None]
            found, maps = actions.map_film(
                models[model], path, self.workspace.folder(), lambda done, what: progress(done, desc=what)
            )
            yield [visible(str(found)), about_maps(maps)]

        self._on(button.click, filmed, [self.video, chosen], [film, about])
        self.results += [film, about]

    def _labels(self) -> None:
        models = self.able["classify"]
        with gr.Tab("Labels"):
            chosen = self._choose(models, "Model")
            button = gr.Button("Show labels over time", variant="primary", elem_id="labels_button")
            strips = gr.HTML(elem_id="labels", min_height=80)

        @in_a_sentence
        def recognized(path, model, progress=gr.Progress()):  # noqa: B008
            self.limits.check(path)
            return label_strips(
                *actions.labels_over_time(models[model], path, lambda done, what: progress(done, desc=what))
            )

        self._on(button.click, recognized, [self.video, chosen], [strips])
        self.results.append(strips)

    def _reconstruct(self) -> None:
        models = self.able["reconstruct"]
        config = next(iter(models.values())).pretrained.config
        with gr.Tab("Reconstruct"):
            chosen = self._choose(models, "Model")
            values = (("Frame", config.image_mask_ratio), ("Spectrogram", config.audio_mask_ratio))
            with gr.Row():
                sliders = [
                    gr.Slider(0, 100, round(100 * value), step=1, label=f"{name} hidden, in %", buttons=[])
                    for name, value in values
                ]
            button = gr.Button("Hide and reconstruct", variant="primary", elem_id="reconstruct_button")
            shown = gr.HTML(elem_id="reconstruction", min_height=80)

        @in_a_sentence
        def reconstructed(path, time, model, *ratios):
            self.limits.check(path)
            hidden_parts = tuple(ratio / 100 for ratio in ratios)
            given = models[model]
            found = reconstruct(given.pretrained, given.processor, path, time, hidden_parts)
            names = ("Frame", "Spectrogram")
            titles = [
                f"{name}: {visible} of {total} patches are visible"
                for name, visible, total in zip(names, found.visible, found.total, strict=True)
            ]
            rows = dict(zip(titles, (list(zip(KINDS, images)) for images in found[:2]), strict=True))
            note = "The model predicts standardized patches: mean and contrast of each are those of the true one."
            return panels(rows) + (paragraph(note, "demo-soft") if found.restored else "")

        inputs = [self.video, self.time, chosen, *sliders]
        for event in (button.click, *(slider.release for slider in sliders)):
            self._on(event, reconstructed, inputs, [shown])
        self.results.append(shown)

    def _search(self) -> None:
        models = self.able["search"]
        across = any(model.across for model in models.values())
        with gr.Tab("Search"):
            count = len(self.clips.files)
            gr.HTML(
                paragraph(f"Search {count} clip{'' if count == 1 else 's'} by the video, or by a file of your own.")
            )
            chosen = self._choose(models, "Model")
            query = gr.File(
                label="An image, a sound or a video instead", file_types=["image", "audio", "video"], height=120
            )
            with gr.Row():
                kind = gr.Radio(list(_KINDS), value="its image", label="Search by", buttons=[])
                among = gr.State(None)
                if across:
                    among = gr.Radio(list(_AMONG), value="sounds of the clips", label="Among the", buttons=[])
            button = gr.Button("Search", variant="primary", elem_id="search_button")
            hits = result(gr.Gallery, "hits", label="Most similar clips", **_GALLERY)
            player = result(gr.Video, "hit", label="Clip", buttons=[], autoplay=True)
            paths = gr.State([])

        @in_a_sentence
        def searched(video, file, model, by, where, progress=gr.Progress()):  # noqa: B008
            if file is None:
                self.limits.check(video)
            elif os.path.getsize(file) > self.limits.megabytes * 1e6:
                raise ValueError(f"Expected a file of at most {self.limits.megabytes} MB, got a larger one.")
            yield [visible(), [], hidden()]
            sought = _KINDS[by]
            compared = _AMONG[where] if models[model].across and where else sought
            found = self.clips.search(
                models[model], file or video, sought, compared, lambda done, what: progress(done, desc=what)
            )
            images = [(thumbnail(hit.path), f"{hit.name}, {hit.similarity:.2f}") for hit in found]
            yield [visible(images), [hit.path for hit in found], hidden()]

        @in_a_sentence
        def watched(found, event: gr.SelectData):
            target = self.workspace.folder() / Path(found[event.index]).name
            shutil.copyfile(found[event.index], target)  # only what is watched is served
            return visible(str(target))

        self._on(button.click, searched, [self.video, query, chosen, kind, among], [hits, paths, player])
        self._on(hits.select, watched, [paths], [player], light=True)


__all__ = ["CSS", "TITLE", "Page"]
