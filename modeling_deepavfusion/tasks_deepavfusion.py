"""The tasks that models are for, by class, and what model cards say of them: known without importing torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CardTask:
    """What a card says about the models of a task.

    Attributes:
        name: Name of the task.
        hub_task: Closest task of the Hub, for `pipeline_tag`.
        pipeline: Name of the task's pipeline; None for encoders.
        auto_class: Auto class of its models.
        result: Expression for the result in an example, of `outputs` and `model`.
        purpose: What its models are for.
        limit: What its models cannot do.
    """

    name: str
    hub_task: str
    pipeline: str | None
    auto_class: str
    result: str
    purpose: str
    limit: str


ENCODER = CardTask(
    "pretraining",
    "feature-extraction",
    None,
    "AutoModel",
    "outputs.last_hidden_state.shape, outputs.image_last_hidden_state.shape, outputs.audio_last_hidden_state.shape",
    "Features of clips, for fine-tuning, probing and retrieval, and research on audio-visual learning.",
    "Pre-trained only: the streams are meant for fine-tuning, probing and retrieval; there is no classifier.",
)
# Class of the model -> task; all other models are encoders.
HEADS = {
    "DeepAVFusionForAudioVisualClassification": CardTask(
        "recognition",
        "video-classification",
        "audio-visual-classification",
        "AutoModelForVideoClassification",
        "model.config.id2label[outputs.logits.argmax(-1).item()]",
        "Labels for clips like those it was trained on, and research on audio-visual recognition.",
        "The model always predicts one of the classes of its training data, whatever the clip.",
    ),
    "DeepAVFusionForSourceSeparation": CardTask(
        "separation",
        "audio-to-audio",
        "audio-visual-source-separation",
        "AutoModelForAudioFrameClassification",
        "outputs.logits.shape",
        "Separation of the sound of what a frame shows, and research on audio-visual source separation.",
        "The model extracts the sound of what the frame shows; it cannot separate two sources in one frame.",
    ),
    "DeepAVFusionForSemanticSegmentation": CardTask(
        "segmentation",
        "image-segmentation",
        "audio-visual-segmentation",
        "AutoModelForSemanticSegmentation",
        "outputs.logits.shape",
        "Masks of what sounds in a frame, and research on audio-visual segmentation.",
        "The mask covers a single frame; sources outside it are not represented.",
    ),
    "DeepAVFusionForSoundLocalization": CardTask(
        "localization",
        "image-segmentation",
        "sound-source-localization",
        "AutoModelForMaskGeneration",
        "outputs.logits.shape",
        "Maps of where a sound comes from in a frame, and research on sound source localization.",
        "The map has one value per patch of the frame, so small sources are localized coarsely.",
    ),
}
TASKS = {task.name: task for task in (ENCODER, *HEADS.values())}

__all__ = ["ENCODER", "HEADS", "TASKS", "CardTask"]
