"""Products of matrices as text of LLVM: tiles that stay in vector registers, and copies of blocks for them.

The rows of A below a tile, and of B ahead, are fetched into the cache while it is computed. In float32, x Wᵀ
of 32 × 784 × 100 took 73 µs by OpenBLAS and 43 by tiles, 128 × 100 × 10 6.0 and 3.0, 1024 × 784 × 512 4960 and 4440; in
float64, 4096 × 784 × 100 12.5 and 7.6 ms (Xeon, CPU time while the other core was busy).
"""

from functools import cache

ROWS, VECTORS = (8, 4, 2, 1), (1, 2, 3)  # of a tile: 24 of 32 registers for sums
BYTES = 64  # of a vector
AHEAD = 8  # rows of B that are fetched into the cache before they are needed


class _Text:
    """Lines of LLVM's text, for vectors of one type."""

    def __init__(self, dtype: str) -> None:
        self.size, self.real = (4, "float") if dtype == "float32" else (8, "double")
        self.width = BYTES // self.size
        self.vector, self.suffix = f"<{self.width} x {self.real}>", f"v{self.width}f{8 * self.size}"
        self.flags, self.lines = f"<{self.width} x i1>", list[str]()

    def add(self, *lines: str) -> None:
        self.lines += lines

    def declared(self) -> None:
        vector, suffix = self.vector, self.suffix
        self.add(
            f"declare {vector} @llvm.fma.{suffix}({vector}, {vector}, {vector})",
            f"declare {vector} @llvm.masked.load.{suffix}.p0(ptr, i32, {self.flags}, {vector})",
            f"declare void @llvm.masked.store.{suffix}.p0({vector}, ptr, i32, {self.flags})",
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        )

    def mask(self, name: str, count: str) -> None:
        """The flags of the first `count` entries."""
        lanes, whole = ", ".join(f"i64 {i}" for i in range(self.width)), f"<{self.width} x i64>"
        self.spread(f"{name}.count", "i64", count)
        self.add(f"%{name} = icmp ult {whole} <{lanes}>, %{name}.count")

    def spread(self, name: str, kind: str, value: str) -> None:
        """A vector with all entries equal."""
        vector = f"<{self.width} x {kind}>"
        self.add(f"%{name}.one = insertelement {vector} poison, {kind} {value}, i64 0")
        zeros = f"<{self.width} x i32> zeroinitializer"
        self.add(f"%{name} = shufflevector {vector} %{name}.one, {vector} poison, {zeros}")

    def moved(self, name: str, pointer: str, offset: str | int) -> None:
        self.add(f"%{name} = getelementptr i8, ptr {pointer}, i64 {offset}")

    def load(self, name: str, pointer: str, mask: str | None) -> None:
        if mask is None:
            self.add(f"%{name} = load {self.vector}, ptr {pointer}, align {self.size}")
        else:
            given = f"ptr {pointer}, i32 {self.size}, {self.flags} {mask}, {self.vector} zeroinitializer"
            self.add(f"%{name} = call {self.vector} @llvm.masked.load.{self.suffix}.p0({given})")

    def store(self, value: str, pointer: str, mask: str | None) -> None:
        if mask is None:
            self.add(f"store {self.vector} {value}, ptr {pointer}, align {self.size}")
        else:
            given = f"{self.vector} {value}, ptr {pointer}, i32 {self.size}, {self.flags} {mask}"
            self.add(f"call void @llvm.masked.store.{self.suffix}.p0({given})")

    def fetch(self, pointer: str) -> None:
        self.add(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")

    def fma(self, name: str, *factors: str) -> None:
        given = ", ".join(f"{self.vector} {factor}" for factor in factors)
        self.add(f"%{name} = call {self.vector} @llvm.fma.{self.suffix}({given})")


_GIVEN = ", ".join(
    f"i64 %{name}"
    for name in ("terms", "A", "B", "C", "alpha", "down", "next", "beside", "below", "last")
)  # fmt: skip


@cache
def product_text(dtype: str, adds: bool) -> str:
    """A function that computes a tile of C ← A B, or with `adds` of C ← C + α A B, for an A with contiguous rows.

    Its arguments are the number of the tile's kind, of ROWS and VECTORS; the number of terms; the addresses of A, B, C
    and α; the strides in bytes of A's rows, B's rows and vectors, and C's rows; the entries of the last vector.
    Each entry of the result is a chain of fused operations in the order of the terms.
    """
    text, kinds = _Text(dtype), [(rows, vectors) for rows in ROWS for vectors in VECTORS]
    text.declared()
    cases = " ".join(f"i64 {i}, label %to{i}" for i in range(len(kinds)))
    text.add(f"define void @NAME(i64 %kind, {_GIVEN}) {{", f"switch i64 %kind, label %end [ {cases} ]")
    for i in range(len(kinds)):
        text.add(f"to{i}:", f"tail call void @tile{i}({_GIVEN})", "br label %end")
    text.add("end:", "ret void", "}")
    for i, (rows, vectors) in enumerate(kinds):
        text.add(f"define internal void @tile{i}({_GIVEN}) {{")
        _tile(text, rows, vectors, adds)
        text.add("ret void", "}")
    return "\n".join(text.lines)


def _tile(text: _Text, rows: int, vectors: int, adds: bool) -> None:
    sums, vector = [(i, j) for i in range(rows) for j in range(vectors)], text.vector
    masks = [None] * (vectors - 1) + ["%mask"]
    text.add("start:", *(f"%{name.lower()}.first = inttoptr i64 %{name} to ptr" for name in "ABC"))
    text.mask("mask", "%last")
    text.add(*(f"%down{i} = mul i64 %down, {i}" for i in sorted({1, 2, 3, 4, rows})))
    # Kept from LLVM, which would compute each row's address from the last one's: a longer chain than that of the sums.
    text.add('%thrice = call i64 asm "", "=r,0"(i64 %down3)', '%fourth = call i64 asm "", "=r,0"(i64 %down4)')
    text.moved("q.first", "%a.first", "%fourth")
    text.moved("p.first", "%a.first", f"%down{rows}")  # the rows below
    text.add(f"%later = mul i64 %next, {AHEAD}")
    text.add("br label %loop", "loop:")
    text.add("%term = phi i64 [ 0, %start ], [ %done, %loop ]")
    text.add(*(f"%{x} = phi ptr [ %{x}.first, %start ], [ %{x}.next, %loop ]" for x in "aqbp"))
    text.add(*(f"%s{i}.{j} = phi {vector} [ zeroinitializer, %start ], [ %t{i}.{j}, %loop ]" for i, j in sums))
    if vectors > 1:
        text.fetch("%p")
    for j, mask in enumerate(masks):
        text.add(f"%beside{j} = mul i64 %beside, {j}")
        text.moved(f"b{j}.place", "%b", f"%beside{j}")
        text.load(f"b{j}", f"%b{j}.place", mask)
        if vectors == VECTORS[-1]:
            text.moved(f"b{j}.later", f"%b{j}.place", "%later")
            text.fetch(f"%b{j}.later")
    for i in range(rows):
        text.moved(f"a{i}.place", "%q" if i >= 4 else "%a", ("0", "%down", "%down2", "%thrice")[i % 4])
        text.add(f"%a{i}.entry = load {text.real}, ptr %a{i}.place")
        text.spread(f"a{i}", text.real, f"%a{i}.entry")
        for j in range(vectors):
            text.fma(f"t{i}.{j}", f"%a{i}", f"%b{j}", f"%s{i}.{j}")
    text.moved("a.next", "%a", text.size)
    text.moved("q.next", "%q", text.size)
    text.moved("b.next", "%b", "%next")
    text.moved("p.next", "%p", rows * text.size)
    text.add("%done = add i64 %term, 1", "%ends = icmp eq i64 %done, %terms", "br i1 %ends, label %end, label %loop")
    text.add("end:")
    if adds:
        text.add("%factor.place = inttoptr i64 %alpha to ptr", f"%factor.entry = load {text.real}, ptr %factor.place")
        text.spread("factor", text.real, "%factor.entry")
    for i in range(rows):
        text.add(f"%below{i} = mul i64 %below, {i}")
        for j, mask in enumerate(masks):
            value, place = f"%t{i}.{j}", f"c{i}.{j}"
            text.moved(f"{place}.row", "%c.first", f"%below{i}")
            text.moved(place, f"%{place}.row", j * BYTES)
            if adds:
                text.load(f"old{i}.{j}", f"%{place}", mask)
                text.fma(f"new{i}.{j}", "%factor", value, f"%old{i}.{j}")
                value = f"%new{i}.{j}"
            text.store(value, f"%{place}", mask)


@cache
def block_text(dtype: str, transposes: bool) -> str:
    """A function that copies or transposes a block of up to as many rows and columns as a vector has entries.

    Its arguments are the addresses of the block and the result, the strides of their rows in bytes, and the numbers of
    rows and columns of the block.
    """
    text = _Text(dtype)
    width, vector, stages = text.width, text.vector, 0
    text.declared()
    given = ", ".join(f"i64 %{name}" for name in ("A", "C", "down", "below", "rows", "columns"))
    text.add(f"define void @NAME({given}) {{", *(f"%{x} = inttoptr i64 %{x.upper()} to ptr" for x in "ac"))
    text.mask("row", "%columns")
    text.mask("column", "%rows")
    for i in range(width):
        text.add(f"%there{i} = icmp ult i64 {i}, %rows", f"%down{i} = mul i64 %down, {i}")
        text.add(f"%mask{i} = select i1 %there{i}, {text.flags} %row, {text.flags} zeroinitializer")
        text.moved(f"a{i}", "%a", f"%down{i}")
        text.load(f"v0.{i}", f"%a{i}", f"%mask{i}")
    stages = width.bit_length() - 1 if transposes else 0
    for stage in range(stages):  # each rotates the bits of (row, column) by one
        for i in range(width):
            first = [i // 2, i // 2 + width // 2]
            start = width // 2 * (i % 2)
            order = ", ".join(f"i32 {start + k // 2 + width * (k % 2)}" for k in range(width))
            pair = ", ".join(f"{vector} %v{stage}.{k}" for k in first)
            text.add(f"%v{stage + 1}.{i} = shufflevector {pair}, <{width} x i32> <{order}>")
    for i in range(width):
        limit, mask = ("%columns", "%column") if transposes else ("%rows", "%row")
        text.add(f"%here{i} = icmp ult i64 {i}, {limit}", f"%below{i} = mul i64 %below, {i}")
        text.add(f"%kept{i} = select i1 %here{i}, {text.flags} {mask}, {text.flags} zeroinitializer")
        text.moved(f"c{i}", "%c", f"%below{i}")
        text.store(f"%v{stages}.{i}", f"%c{i}", f"%kept{i}")
    text.add("ret void", "}")
    return "\n".join(text.lines)
