"""A page in the browser to try saved models, on this machine or as a Space.

deepavfusion demo runs/scenes_localization runs/scenes_separation
deepavfusion demo runs/search --clips videos/
deepavfusion demo runs/scenes_segmentation --export-space space/
"""

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say


@command("deepavfusion demo")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("demo", argv)
    if arguments.export_space is not None:
        from .space import export_space

        export_space(arguments.export_space, arguments.models, arguments.fit, arguments.seed)
        say(f"written to {arguments.export_space}")
        return 0
    from .serving import serve  # imports gradio

    return serve(arguments)


__all__ = ["main"]
