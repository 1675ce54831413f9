"""The end of a pre-training run: the model, processor, card, figures and results in one folder, and what to do next."""

import datetime
from typing import Any

import torch

from .figures import training_curves
from .job import Job
from .model_card import aligned, package_versions, score_table, write_card, write_results
from .precision import float32_precision
from .preparation import num_patches
from .tracking import duration, quiet_library


def finish(job: Job) -> None:
    """Writes the result folder and prints where things are. All processes must call it together."""
    accelerator, folder = job.accelerator, job.folder
    with quiet_library():
        job.module.save_pretrained(folder, is_main_process=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        job.processor.save_pretrained(folder)
        train, evaluations = job.metrics.read("train"), job.metrics.read("evaluation")
        results = collect(job, train, evaluations)
        write_results(folder, results)
        training_curves(train, evaluations, results["chance"], folder / "training_curves.png", folder.resolve().name)
        write_card(folder, results, job.args.to_yaml(public=True), job.args.run.license)
        _print_summary(job, results)
        if job.args.run.demo:
            demonstrate(job)
    accelerator.wait_for_everyone()


def collect(job: Job, train: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    """What results.json holds."""
    args, config, module = job.args, job.config, job.module
    image_patches, audio_patches = num_patches(config)
    origins = [args.model.init_from, args.model.init_image, args.model.init_audio]
    fields = ("step", "epoch", "loss", "image_loss", "audio_loss", "clips", "probe")
    before, after = ({key: record[key] for key in fields} for record in (evaluations[0], evaluations[-1]))
    frames = f"{config.num_frames} x " if config.num_frames > 1 else ""
    return {
        "date": datetime.date.today().isoformat(),
        "recipe": args.recipe,
        "initial_weights": ", ".join(origin for origin in origins if origin) or "random",
        "before": before,
        "after": after,
        "chance": evaluations[-1]["chance"],
        "ceilings": job.eval_clips.ceilings,
        "run": {
            "steps": job.step,
            "effective_batch": job.schedule.effective_batch,
            "clips_seen": job.clips,
            "seconds": job.seconds,
            "samples_per_second": job.clips / max(job.seconds, 1e-9),
            "waiting_share": sum(r["waiting_share"] for r in train) / max(len(train), 1),
            "device": f"{job.accelerator.num_processes} x {device_name(job.accelerator.device)}",
            "mixed_precision": args.optim.mixed_precision,
            "float32_matmul_precision": float32_precision(),
            "skipped": {**job.broken.reasons, **job.eval_broken.reasons},
        },
        "data": {
            "name": args.data.name,
            "description": job.train_clips.card,
            "train_clips": len(job.train_clips),
            "eval_clips": after["clips"],
            "eval_split": args.data.eval_split,
        },
        "model": {
            "parameters": sum(p.numel() for p in module.parameters()),
            "encoder_parameters": sum(p.numel() for p in module.deepavfusion.parameters()),
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "fusion_type": config.fusion_type,
            "fusion_layers": str(config.fusion_layers),
            "fusion_tokens": config.num_all_fusion_tokens,
            "frame": f"{frames}{config.frame_size[0]} x {config.frame_size[1]}",
            "spectrogram": f"{config.num_mel_bins} mels x {config.spectrogram_length} steps",
            "image_patches": image_patches,
            "audio_patches": audio_patches,
            "norm_patch_loss": config.norm_patch_loss,
        },
        "versions": package_versions(),
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)" if device.type == "cpu" else device.type


def _print_summary(job: Job, results: dict[str, Any]) -> None:
    folder, run, say = job.folder, results["run"], job.reporter.print
    say(
        f"\n{run['clips_seen']:,} clips in {duration(run['seconds'])} ({run['samples_per_second']:.3g} a second); "
        f"held-out "
        f"loss {results['before']['loss']:.4f} -> {results['after']['loss']:.4f}"
    )
    rows = score_table(results)
    if rows:
        say(f"\nnearest neighbour on {results['data']['eval_clips']} held-out clips:\n{aligned(rows)}")
        for sense, scores in (results["ceilings"] or {}).items():
            say(f"best possible from {sense}: " + ", ".join(f"{name} {100 * x:.1f} %" for name, x in scores.items()))
    if run["skipped"]:
        say(f"\n{len(run['skipped'])} clips could not be read and were skipped; results.json names them.")
    say(
        f"\nmodel           {folder} (a Hub repository as it stands)\n"
        f"card            {folder / 'README.md'}\n"
        f"reconstructions {folder / 'reconstructions.png'}\n"
        f"curves          {folder / 'training_curves.png'}\n\n"
        f"next:\n  deepavfusion embed CLIP.mp4 --model {folder}\n"
        f"  deepavfusion pretrain folder data.path=VIDEOS model.init_from={folder}\n"
        f"  hf upload ORG/NAME {folder}"
    )


def demonstrate(job: Job) -> None:
    """Writes a held-out scene (mp4, wav, png) into the folder and embeds it with the saved model, by its pipeline."""
    from . import embed
    from .data.scenes_config import SPLIT_OFFSETS, ScenesConfig
    from .data.scenes_export import write_scene

    scenes = getattr(job.eval_clips, "config", None)
    if not isinstance(scenes, ScenesConfig):
        scenes = ScenesConfig(image_size=job.config.frame_size)
    write_scene(scenes, SPLIT_OFFSETS["test"], job.folder / "scene")
    clip = job.folder / "scene" / "clip.mp4"
    streams = embed.embed(embed.load(str(job.folder), "cpu"), str(clip))
    embed.save(streams, job.folder / "scene" / "clip.safetensors", str(clip), job.folder.name)
    shapes = ", ".join(f"{name} {tuple(stream.shape)}" for name, stream in streams.items())
    job.reporter.print(f"\nembedded {clip} with the saved model: {shapes}")


__all__ = ["collect", "demonstrate", "device_name", "finish"]
