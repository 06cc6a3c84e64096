"""Writes chats.parquet beside this file: conversations and pairs as data sets on the Hugging Face hub have them.

    python tests/golden/text/make_parquet.py

Needs pyarrow.
"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = [
    {"messages": [{"role": "user", "content": "How far?"}, {"role": "assistant", "content": "Größe 🫖"}], "score": 0.5},
    {"messages": [{"role": "user", "content": "And why?"}, {"role": "assistant", "content": "So."}], "score": None},
]
pq.write_table(pa.Table.from_pylist(ROWS), pathlib.Path(__file__).parent / "chats.parquet", compression="snappy")
