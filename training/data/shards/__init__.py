"""Clips prepared once, in tar files with an index, read exactly and at random.

A prepared data set is a folder:

```
dataset.json                what was prepared, how, and what could not be read
index.arrow                 a row per clip: annotations, and where its members lie
shards/train-000000.tar     WebDataset: <key>.mov (frames as JPEG) or mp4, <key>.flac (16 kHz, mono) or wav, <key>.json
parts/train-000000.json     the rows of each shard, from which an interrupted preparation goes on
```

`members` and `downloads` read parts of tar files; `encoding`, of `video` and `audio`, turns a clip into members;
`writing` and `index` make the folder; `reading` and `source` give its clips to training.
"""

from .encoding import Encoding
from .index import finish
from .reading import ShardReader, read_about, read_shards
from .writing import Preparation, estimate_bytes, prepare

__all__ = ["Encoding", "Preparation", "ShardReader", "estimate_bytes", "finish", "prepare", "read_about", "read_shards"]
