"""Objects in memory, for what reads and writes them."""

from collections.abc import Iterator

from enginehouse.batch.objects import Object, Objects


class MemoryObjects(Objects):
    """Objects of one bucket, given out in chunks of a chosen size."""

    def __init__(self, contents: dict[str, bytes], chunk_bytes: int = 7) -> None:
        super().__init__("http://127.0.0.1:1")
        self.contents = contents
        self.chunk_bytes = chunk_bytes

    def all(self) -> list[Object]:
        return [Object("b", name, "1", len(data), {}) for name, data in self.contents.items()]

    def read(self, bucket: str, name: str, generation: str, start: int, end: int) -> Iterator[bytes]:
        data = self.contents[name][start:end]
        for offset in range(0, len(data), self.chunk_bytes):
            yield data[offset : offset + self.chunk_bytes]
