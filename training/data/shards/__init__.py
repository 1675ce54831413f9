"""Clips prepared once, in tar files with an index, read exactly and at random.

A prepared data set is a folder:

```
dataset.json                what was prepared, how, and what could not be read
index.arrow                 a row per clip: annotations, and where its members lie
shards/train-000000.tar     WebDataset: <key>.mov (frames as JPEG) or mp4, <key>.flac (16 kHz, mono) or wav, <key>.json;
                            and, where frames have masks, <key>.masks.mov (PNG)
parts/train-000000.json     the rows of each shard, from which an interrupted preparation goes on
```

`members` and `downloads` read parts of tar files; `encoding`, of `video` and `audio`, turns a clip into members, and
`stills` annotated frames; `preparation` says what is written, `writing` and `index` write it, as `drafts` until it is
whole; `reading` and `source` give clips to training.
"""

from .encoding import Encoding
from .index import finish, is_finished, read_shards
from .preparation import WITHOUT_SPLITS, FolderTakenError, Preparation, begun_shard_size, claim, is_claimed
from .reading import ShardReader, read_about
from .source import chosen_options, list_digests
from .stills import still_rows
from .writing import changed_sources, estimate_bytes, free_bytes, pending_shards, prepare

__all__ = [
    "WITHOUT_SPLITS",
    "Encoding",
    "FolderTakenError",
    "Preparation",
    "ShardReader",
    "begun_shard_size",
    "changed_sources",
    "chosen_options",
    "claim",
    "estimate_bytes",
    "finish",
    "free_bytes",
    "is_claimed",
    "is_finished",
    "list_digests",
    "pending_shards",
    "prepare",
    "read_about",
    "read_shards",
    "still_rows",
]
