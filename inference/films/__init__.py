"""Films of results: frames with maps over them, and audio, as MP4 files that browsers play."""
