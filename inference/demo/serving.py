"""Serves the demo until it is stopped, without any other server than itself."""

import argparse
import os
import threading

from deepavfusion_cli.terminal import say

from ..common import check_device
from ..jobs.progress import plain_output
from ..precision import set_float32_precision, set_threads
from .models import load_models
from .search import ClipSearch
from .workspace import ExampleScenes, Limits, Workspace

# Read when gradio is imported: no statistics, no look for newer versions.
_OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def serve(arguments: argparse.Namespace, stopped: threading.Event | None = None) -> int:
    """Load the models and serve the page.

    Args:
        arguments: From `deepavfusion_cli.preflight.parse`.
        stopped: Ends the serving once it is set; by default only a signal does.

    Returns:
        The exit code.

    Raises:
        OSError: If there is no such model, or the port is in use.
        ValueError: If a model cannot be used.
    """
    set_float32_precision()
    set_threads()
    plain_output()
    check_device(arguments.device)
    with Workspace() as workspace:
        os.environ.update(_OFFLINE, GRADIO_TEMP_DIR=str(workspace.cache))
        for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own server, which no proxy reaches
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), arguments.host, "127.0.0.1", "localhost")))
        scenes = ExampleScenes(workspace.root / "scenes", arguments.seed)
        try:
            clips = None if arguments.clips is None else ClipSearch.of_folder(str(arguments.clips))
            models = load_models(arguments.models, arguments.device, arguments.fit, arguments.precision)
            examples = scenes.paths()
        finally:
            scenes.stop()
        limits = Limits(arguments.max_megabytes, arguments.max_seconds)
        _launch(models, examples, clips, workspace, limits, arguments, stopped or threading.Event())
    return 0


def _launch(models, examples, clips, workspace, limits, arguments, stopped: threading.Event) -> None:
    import gradio as gr

    from .app import CSS, Page

    clips = clips or ClipSearch([(str(path), path.stem) for path in examples])
    page = Page(models, examples, clips, workspace, limits).build()
    try:
        _, address, _ = page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            _frontend=False,  # or gradio gives up where its page takes three seconds, on a busy machine
            enable_monitoring=False,
            footer_links=[],
            max_file_size=f"{limits.megabytes}mb",
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css_paths=CSS,
        )
        say(f"the demo is at {address} (Ctrl-C stops it)")
        stopped.wait()
    finally:
        page.close(verbose=False)


__all__ = ["serve"]
