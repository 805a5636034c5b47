"""The common CUDA source of every kernel of `nnkit.one_launch`: hardware primitives and the loops of a step.

`MACHINE` and `CLUSTER` wrap the hardware: the threads of a block, asynchronous copies, and the cluster, whose blocks
read each other's shared memory. They use PTX, which needs no headers; tests replace them by host threads.
`LOOPS` is plain C++: each function strides over its entries with the block's threads, and one thread sums each entry,
in an order that does not depend on the number of threads. Rows of shared arrays are an odd multiple of 16 bytes long,
so that lanes of a warp that read four entries from different rows cause no bank conflicts.
"""

MACHINE = """\
__device__ inline unsigned int shared_address(const void *p) { return (unsigned int)__cvta_generic_to_shared(p); }
template <int BYTES> __device__ inline void copy_early(void *to, const void *from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;"
                 :: "r"(shared_address(to)), "l"(from), "n"(BYTES) : "memory");
#else
    typedef Pack<float, BYTES / 4> Bytes;
    *reinterpret_cast<Bytes *>(to) = *reinterpret_cast<const Bytes *>(from);
#endif
}
__device__ inline void copies_done() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
__device__ inline void block_sync() { __syncthreads(); }
"""

CLUSTER = """\
__device__ inline unsigned int cluster_rank() {
    unsigned int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
__device__ inline Pack<float, 4> load_peer(const float *p, unsigned int rank) {
    unsigned int there;
    Pack<float, 4> x;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(p)), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(x.lane[0]), "=f"(x.lane[1]), "=f"(x.lane[2]), "=f"(x.lane[3]) : "r"(there) : "memory");
    return x;
}
"""

LOOPS = """\
typedef float R;
typedef Pack<float, 4> R4;
__device__ inline R4 load4(const float *p) { return *reinterpret_cast<const R4 *>(p); }
__device__ inline void store4(float *p, const R4 &x) { *reinterpret_cast<R4 *>(p) = x; }

// h = x W^T: store(row, unit, sum). TILE rows per thread; the arrays have rows up to the next multiple of TILE.
template <int UNITS, int QUADS, int W_ROW, int X_ROW, int TILE, class Store>
__device__ inline void multiply(const float *x, const float *w, int rows, Store store) {
    const int tasks = (rows + TILE - 1) / TILE * UNITS;
    for (int i = threadIdx.x; i < tasks; i += blockDim.x) {
        const int unit = i % UNITS, row = i / UNITS * TILE;
        R4 sums[TILE] = {};
#pragma unroll 5
        for (int q = 0; q < QUADS; ++q) {
            const R4 weights = load4(w + unit * W_ROW + 4 * q);
#pragma unroll
            for (int t = 0; t < TILE; ++t) {
                const R4 inputs = load4(x + (row + t) * X_ROW + 4 * q);
#pragma unroll
                for (int k = 0; k < 4; ++k) sums[t].lane[k] += weights.lane[k] * inputs.lane[k];
            }
        }
#pragma unroll
        for (int t = 0; t < TILE; ++t)
            store(row + t, unit, (sums[t].lane[0] + sums[t].lane[1]) + (sums[t].lane[2] + sums[t].lane[3]));
    }
}

// dx = delta W: store(row, input, sum).
template <int INPUTS, int UNITS, int W_ROW, int DELTA_ROW, int TILE, class Store>
__device__ inline void multiply_back(const float *delta, const float *w, int rows, Store store) {
    const int tasks = (rows + TILE - 1) / TILE * INPUTS;
    for (int i = threadIdx.x; i < tasks; i += blockDim.x) {
        const int input = i % INPUTS, row = i / INPUTS * TILE;
        R sums[TILE] = {};
#pragma unroll 5
        for (int unit = 0; unit < UNITS; ++unit) {
            const R weight = w[unit * W_ROW + input];
#pragma unroll
            for (int t = 0; t < TILE; ++t) sums[t] += weight * delta[(row + t) * DELTA_ROW + unit];
        }
#pragma unroll
        for (int t = 0; t < TILE; ++t) store(row + t, input, sums[t]);
    }
}

// dW = delta^T x: apply(offset in W, four entries of the gradient). `thread` numbers the block's threads in any order.
template <int UNITS, int QUADS, int W_ROW, int X_ROW, int DELTA_ROW, class Apply>
__device__ inline void weight_gradients(int thread, const float *delta, const float *x, int rows, Apply apply) {
    for (int i = thread; i < (UNITS + 3) / 4 * QUADS; i += blockDim.x) {
        const int q = i % QUADS, unit = i / QUADS * 4;
        R4 sums[4] = {};
#pragma unroll 5
        for (int row = 0; row < rows; ++row) {
            const R4 errors = load4(delta + row * DELTA_ROW + unit), inputs = load4(x + row * X_ROW + 4 * q);
#pragma unroll
            for (int u = 0; u < 4; ++u)
#pragma unroll
                for (int k = 0; k < 4; ++k) sums[u].lane[k] += errors.lane[u] * inputs.lane[k];
        }
#pragma unroll
        for (int u = 0; u < 4; ++u)
            if (unit + u < UNITS) apply((unit + u) * W_ROW + 4 * q, sums[u]);
    }
}

// db = 1^T delta: apply(unit, entry of the gradient).
template <int UNITS, int DELTA_ROW, class Apply>
__device__ inline void bias_gradients(int thread, const float *delta, int rows, Apply apply) {
    for (int unit = thread; unit < UNITS; unit += blockDim.x) {
        R sum = 0;
#pragma unroll 5
        for (int row = 0; row < rows; ++row) sum += delta[row * DELTA_ROW + unit];
        apply(unit, sum);
    }
}

// apply(row, unit) for each entry of a (rows, UNITS) array.
template <int UNITS, class Apply> __device__ inline void entries(int rows, Apply apply) {
    for (int i = threadIdx.x; i < rows * UNITS; i += blockDim.x) apply(i / UNITS, i % UNITS);
}

// Copy the rows of a matrix from global memory to rows of another length in shared memory, and back.
__device__ inline void read_rows(float *to, int to_row, const float *from, int from_row, int rows, int columns) {
    for (int i = threadIdx.x; i < rows * columns; i += blockDim.x)
        to[i / columns * to_row + i % columns] = from[i / columns * (long long)from_row + i % columns];
}
__device__ inline void write_rows(const float *from, int from_row, float *to, int to_row, int rows, int columns) {
    for (int i = threadIdx.x; i < rows * columns; i += blockDim.x)
        to[i / columns * (long long)to_row + i % columns] = from[i / columns * from_row + i % columns];
}
"""

GATHER = """\
// The sum of an array (rows, UNITS) over the blocks of the cluster, in order of their ranks: store(row, unit, sum).
template <int BLOCKS, int UNITS, int ROW, class Store>
__device__ inline void gather(const float *partial, int rows, Store store) {
    constexpr int QUADS = (UNITS + 3) / 4;
    for (int i = threadIdx.x; i < rows * QUADS; i += blockDim.x) {
        const int row = i / QUADS, unit = i % QUADS * 4;
        R4 parts[BLOCKS];
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) parts[block] = load_peer(partial + row * ROW + unit, block);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            R sum = parts[0].lane[k];
#pragma unroll
            for (int block = 1; block < BLOCKS; ++block) sum += parts[block].lane[k];
            if (unit + k < UNITS) store(row, unit + k, sum);
        }
    }
}
"""
