#include "gemm.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "arm_compute/core/CPP/CPPTypes.h"
#include "scratch.h"
#include "src/cpu/kernels/assembly/arm_gemm.hpp"

namespace acl_qlinear {
namespace {

using Gemm = arm_gemm::UniqueGemmCommon<int8_t, int8_t, int32_t>;

arm_gemm::GemmArgs args_for(int64_t M, int64_t N, int64_t K, const arm_gemm::GemmConfig& config) {
    // One thread: parallel callers run a GEMM of their own each, over a tile.
    return {&arm_compute::CPUInfo::get(),
            static_cast<unsigned>(M),
            static_cast<unsigned>(N),
            static_cast<unsigned>(K),
            /*Ksections=*/1,
            /*nbatches=*/1,
            /*nmulti=*/1,
            /*indirect_input=*/false,
            arm_gemm::Activation(),
            /*maxthreads=*/1,
            /*fixed_format=*/false,
            /*fast_mode=*/false,
            /*accumulate=*/false,
            &config};
}

Gemm make_gemm(int64_t M, int64_t N, int64_t K, const arm_gemm::GemmConfig& config) {
    return arm_gemm::gemm<int8_t, int8_t, int32_t>(args_for(M, N, K, config));
}

// A hybrid kernel works in blocks of `n_block` columns, with 0 as ACL chooses; an interleaved one
// in blocks of K.
arm_gemm::GemmConfig config_for(const GemmKernel& kernel, int64_t K, int64_t n_block = 0) {
    arm_gemm::GemmConfig config;
    config.filter = kernel.name;
    if (kernel.is_hybrid) {
        config.outer_block_size = static_cast<unsigned>(n_block);
    } else {
        // A panel of 24 columns (256-bit vectors) takes half of a 64 KiB L1 cache, as Neoverse cores
        // have; ACL takes every core's to have 32, and each further block is a pass over the results.
        constexpr int64_t longest = 32 * 1024 / 24;
        const int64_t blocks = (K + longest - 1) / longest;
        config.inner_block_size = static_cast<unsigned>((K + blocks - 1) / blocks);
    }
    return config;
}

// ACL's name of its fastest kernel of one kind for `rows` rows, empty if it has
// none on this CPU, and ACL's estimates of that kernel's cycles at 1 to kMaxRows rows.
std::string fastest(arm_gemm::GemmMethod method, int64_t rows, int64_t N, int64_t K, uint64_t* cycles) {
    const auto compatible = [&](int64_t m) {
        return arm_gemm::get_compatible_kernels<int8_t, int8_t, int32_t>(args_for(m, N, K, arm_gemm::GemmConfig()));
    };
    std::string name;
    uint64_t best = 0;
    for (const auto& kernel : compatible(rows)) {
        // smallK kernels have the hybrid method, but another tiling.
        if (kernel.method == method && kernel.name.find("smallK") == std::string::npos &&
            (name.empty() || kernel.cycle_estimate < best)) {
            name = kernel.name;
            best = kernel.cycle_estimate;
        }
    }
    for (int64_t m = 1; m <= kMaxRows && !name.empty(); ++m) {
        for (const auto& kernel : compatible(m)) {
            if (kernel.name == name) {
                cycles[m - 1] = kernel.cycle_estimate;
            }
        }
    }
    return name;
}

GemmKernel describe(const std::string& name, bool is_hybrid, int64_t N, int64_t K) {
    if (name.size() >= kKernelNameSize) {
        throw std::logic_error("ACL's kernel name " + name + " does not fit into " + std::to_string(kKernelNameSize) +
                               " bytes");
    }
    GemmKernel kernel{};
    name.copy(kernel.name, name.size());
    kernel.is_hybrid  = is_hybrid;
    const auto config = config_for(kernel, K);
    // Asked for a wide and deep matrix, a hybrid GEMM works in blocks of one panel.
    kernel.column_step = is_hybrid ? make_gemm(kMaxRows, 4096, 4096, config)->get_config().outer_block_size : 0;
    // At M = 1, since ACL adds M pointers that it no longer uses.
    kernel.panel_bytes = make_gemm(1, N, K, config)->get_B_pretransposed_array_size();
    return kernel;
}

// How many columns a hybrid kernel gets in one call.
int64_t hybrid_block(const GemmKernel& kernel, const GemmTile& t) {
    constexpr int64_t height = 6, panel_bytes = 32 * 1024;
    const int64_t width = t.column_end - t.column_begin;
    // All of them for one block of rows; otherwise what stays in half an L1 cache
    // until the last block of rows has used it.
    if (t.rows <= height && t.column_begin % width == 0) {
        return width;
    }
    const int64_t step  = kernel.column_step;
    const int64_t steps = std::max<int64_t>(1, panel_bytes / (step * t.K));
    const int64_t block = std::min(steps * step, width);
    // ACL counts blocks from column 0 and cuts only the one at N: any other must end with the tile.
    const bool fits = t.column_begin % block == 0 && (width % block == 0 || t.column_end == t.N);
    return fits ? block : step;
}

} // namespace

KernelChoice choose_kernels(int64_t N, int64_t K) {
    KernelChoice choice{};
    uint64_t hybrid_cycles[kMaxRows], wide_cycles[kMaxRows];
    // Few rows decide which hybrid kernel is packed, many rows which wide one.
    const auto hybrid = fastest(arm_gemm::GemmMethod::GEMM_HYBRID, 1, N, K, hybrid_cycles);
    const auto wide   = fastest(arm_gemm::GemmMethod::GEMM_INTERLEAVED, kMaxRows, N, K, wide_cycles);
    if (hybrid.empty() && wide.empty()) {
        throw std::runtime_error("ACL has no s8 x s8 -> s32 GEMM kernel for this CPU, N=" + std::to_string(N) +
                                 ", K=" + std::to_string(K));
    }
    choice.narrow = describe(hybrid.empty() ? wide : hybrid, !hybrid.empty(), N, K);
    if (hybrid.empty() || wide.empty()) {
        return choice;
    }
    for (int64_t i = 0; i < kMaxRows; ++i) {
        // ACL's estimates for hybrid kernels leave out that their last tile may be a partial one.
        // Where rows fill all of the interleaved tiles (8 rows high), that is worth 10 %: at
        // 8x768x768 on a Neoverse V1 ACL estimates 44 against 48, and it is 49 against 44 (thousands
        // of modelled cycles).
        const uint64_t bonus = (i + 1) % 8 ? 100 : 110;
        if (wide_cycles[i] * 100 < hybrid_cycles[i] * bonus) {
            choice.wide_for_rows[i / 64] |= uint64_t{1} << (i % 64);
        }
    }
    if (choice.wide_for_rows[0] || choice.wide_for_rows[1]) {
        choice.wide = describe(wide, false, N, K);
    }
    return choice;
}

void pack_panels(const GemmKernel& kernel, int64_t N, int64_t K, const int8_t* transposed, void* panels) {
    make_gemm(1, N, K, config_for(kernel, K))
        ->pretranspose_B_array(panels, transposed, static_cast<int>(N), 0, false);
}

void run_gemm(const GemmKernel& kernel, const GemmTile& t) {
    const int64_t width   = t.column_end - t.column_begin;
    const int64_t n_block = kernel.is_hybrid ? hybrid_block(kernel, t) : 0;

    const Gemm gemm = make_gemm(t.rows, t.N, t.K, config_for(kernel, t.K, n_block));
    if (!gemm) {
        throw std::invalid_argument(std::string("ACL does not offer the kernel it was packed for, ") + kernel.name +
                                    ", on this CPU: pack the weight again here");
    }
    gemm->set_pretransposed_B_data(const_cast<void*>(t.panels));
    if (const size_t bytes = gemm->get_working_size()) {
        gemm->set_working_space(scratch<Scratch::gemm_workspace, char>(bytes));
    }
    gemm->set_arrays(t.activations, static_cast<int>(t.K), 0, 0, nullptr, 0, 0, t.out - t.column_begin,
                     static_cast<int>(width), 0, 0, t.offset, 0);

    unsigned begin = 0, count = gemm->get_window_size().total_size();
    if (kernel.is_hybrid) {
        // Windows count blocks of rows first, then blocks of columns.
        const auto blocks = [&](int64_t columns) { return static_cast<unsigned>((columns + n_block - 1) / n_block); };
        const unsigned row_blocks = count / blocks(t.N);
        begin = blocks(t.column_begin) * row_blocks;
        count = blocks(width) * row_blocks;
    }
    gemm->execute({{begin, count}}, {}, 0);
}

} // namespace acl_qlinear
