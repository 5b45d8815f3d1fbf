// SPDX-License-Identifier: MIT
#include "engine/packed_weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

#include "engine/gemm.h"
#include "engine/quantize.h"
#include "kernels/integers.h"

namespace acl_qlinear {
namespace {

constexpr uint64_t kMagic = 0x314c4e51'4c4341ffULL; // "\xffACLQNL1", little endian
constexpr uint32_t kVersion = 3;
constexpr size_t kAlign = 64;
// Vectors of one value per column have room up to a multiple of this.
constexpr int64_t kPaddedColumns = 16;
static_assert(kPaddedColumns % kEpilogueColumns == 0, "a call's terms are made of whole blocks of columns");
static_assert(kPaddedColumns % kFloatsAtOnce == 0, "floats are quantized in whole vectors");

struct Header {
    uint64_t magic;
    uint32_t version;
    uint32_t sve_bytes; // the width of SVE kernels' panels; 0 without SVE
    uint64_t size;
    int64_t N;
    int64_t K;
    int64_t scale_count;
    uint32_t bias_is_nonzero;
    uint32_t bias_was_given;
    uint32_t has_zero_points;
    uint32_t has_pre_scale;
    char family[48];
};

struct Layout {
    size_t column_sums, scales, bias, zero_points, pre_scale, values, size;
};

Layout layout_of(const Header& header, const KernelFamily& family) {
    const size_t columns = static_cast<size_t>(round_up(header.N, kPaddedColumns));
    Layout at{};
    at.column_sums = round_up(sizeof(Header), kAlign);
    at.scales = at.column_sums + columns * sizeof(int32_t);
    at.bias = at.scales + (header.scale_count == 1 ? kAlign : columns * sizeof(double));
    at.zero_points = at.bias + columns * sizeof(float);
    at.pre_scale = at.zero_points + (header.has_zero_points ? columns * sizeof(int32_t) : 0);
    const size_t rows = static_cast<size_t>(round_up(header.K, kPaddedColumns));
    at.values = at.pre_scale + (header.has_pre_scale ? rows * sizeof(float) : 0);
    at.size = round_up(at.values + family.packed_bytes(header.N, header.K), static_cast<size_t>(header.N));
    return at;
}

Header header_of(const WeightSource& source, const KernelFamily& family) {
    const auto is_not_0 = [](auto value) { return value != 0; };
    Header header{};
    header.magic = kMagic;
    header.version = kVersion;
    header.sve_bytes = sve_bytes();
    header.N = source.N;
    header.K = source.K;
    header.scale_count = source.scale_count;
    header.bias_was_given = source.bias != nullptr;
    header.bias_is_nonzero = source.bias && std::any_of(source.bias, source.bias + source.N, is_not_0);
    header.has_zero_points =
        source.zero_points && std::any_of(source.zero_points, source.zero_points + source.scale_count, is_not_0);
    header.has_pre_scale = source.pre_scale != nullptr;
    std::string(family.name).copy(header.family, sizeof header.family - 1);
    header.size = layout_of(header, family).size;
    return header;
}

void check(const WeightSource& s) {
    const auto text = [](auto v) { return std::to_string(v); };
    if (s.N < 1 || s.N > INT32_MAX / 16) {
        throw std::invalid_argument("weight has N=" + text(s.N) + " output features, expected 1 to " +
                                    text(INT32_MAX / 16));
    }
    const int64_t most = s.zero_points ? kMaxKWithZeroPoints : kMaxK;
    if (s.K < 1 || s.K > most) {
        throw std::invalid_argument("weight has K=" + text(s.K) + " input features, expected 1 to " + text(most) +
                                    " (beyond it 32-bit accumulators can overflow)");
    }
    if (s.scale_count != 1 && s.scale_count != s.N) {
        throw std::invalid_argument("weight has " + text(s.scale_count) + " scales, expected 1 or N=" + text(s.N));
    }
    for (int64_t i = 0; i < s.scale_count; ++i) {
        if (!std::isfinite(s.scales[i]) || s.scales[i] <= 0) {
            throw std::invalid_argument("weight scale " + text(i) + " is " + text(s.scales[i]) +
                                        ", expected a finite number above 0");
        }
    }
    for (int64_t i = 0; s.zero_points && i < s.scale_count; ++i) {
        if (s.zero_points[i] < -128 || s.zero_points[i] > 127) {
            throw std::invalid_argument("weight zero point " + text(i) + " is " + text(s.zero_points[i]) +
                                        ", expected -128 to 127");
        }
    }
    for (int64_t n = 0; s.bias && n < s.N; ++n) {
        if (!std::isfinite(s.bias[n])) {
            throw std::invalid_argument("bias[" + text(n) + "] is " + text(s.bias[n]) + ", expected a finite number");
        }
    }
    for (int64_t k = 0; s.pre_scale && k < s.K; ++k) {
        if (!std::isfinite(s.pre_scale[k])) {
            throw std::invalid_argument("pre_scale[" + text(k) + "] is " + text(s.pre_scale[k]) +
                                        ", expected a finite number");
        }
    }
}

} // namespace

PackPlan plan_packing(const WeightSource& source) {
    check(source);
    return plan_packing(source, choose_family(source.N, source.K));
}

PackPlan plan_packing(const WeightSource& source, const KernelFamily& family) {
    check(source);
    return {&family, header_of(source, family).size};
}

void pack(const WeightSource& source, const PackPlan& plan, void* bytes) {
    const int64_t N = source.N, K = source.K;
    const Header header = header_of(source, *plan.family);
    const Layout at = layout_of(header, *plan.family);

    auto* const base = static_cast<char*>(bytes);
    std::memset(base, 0, at.size);
    std::memcpy(base, &header, sizeof header);

    auto* const sums = reinterpret_cast<int32_t*>(base + at.column_sums);
    auto* const zero_points = reinterpret_cast<int32_t*>(base + at.zero_points);
    for (int64_t n = 0; n < N; ++n) {
        if (header.has_zero_points) {
            zero_points[n] = source.zero_points[source.scale_count == 1 ? 0 : n];
            sums[n] = static_cast<int32_t>(-K * zero_points[n]);
        }
        sums[n] = std::accumulate(source.values + n * K, source.values + (n + 1) * K, sums[n]);
    }
    auto* const scales = reinterpret_cast<double*>(base + at.scales);
    std::fill(std::copy_n(source.scales, source.scale_count, scales), reinterpret_cast<double*>(base + at.bias),
              source.scales[0]);
    if (source.bias) {
        std::memcpy(base + at.bias, source.bias, static_cast<size_t>(N) * sizeof(float));
    }
    if (source.pre_scale) {
        std::memcpy(base + at.pre_scale, source.pre_scale, static_cast<size_t>(K) * sizeof(float));
    }
    pack_weights(*plan.family, N, K, source.values, reinterpret_cast<int8_t*>(base + at.values));
}

PackedWeight checked_view(const void* bytes, size_t size) {
    const auto* const base = static_cast<const char*>(bytes);
    Header header;
    if (size < sizeof header) {
        throw std::invalid_argument("it has " + std::to_string(size) + " bytes, too few for a packed weight");
    }
    std::memcpy(&header, base, sizeof header);
    if (header.magic != kMagic) {
        throw std::invalid_argument("it does not start with the mark of a packed weight");
    }
    if (header.version != kVersion) {
        throw std::invalid_argument("it has format version " + std::to_string(header.version) + ", expected " +
                                    std::to_string(kVersion) + ": pack the weight again");
    }
    if (header.size != size) {
        throw std::invalid_argument("it has " + std::to_string(size) + " bytes, its header says " +
                                    std::to_string(header.size));
    }
    if (header.sve_bytes != sve_bytes()) {
        throw std::invalid_argument("it was packed for SVE vectors of " + std::to_string(header.sve_bytes) +
                                    " bytes, this CPU has " + std::to_string(sve_bytes()) +
                                    ": pack the weight again on this CPU");
    }
    header.family[sizeof header.family - 1] = 0;
    const KernelFamily* const family = find_family(header.family);
    if (!family) {
        throw std::invalid_argument(std::string("it was packed for the kernel ") + header.family +
                                    ", which is not used here: pack the weight again");
    }
    if (!family->runs_here()) {
        throw std::invalid_argument(
            std::string("it was packed for the kernel ") + header.family +
            ", which takes instructions that this CPU lacks: pack the weight again on this CPU");
    }
    const bool has_sizes = header.N >= 1 && header.K >= 1 && header.K <= kMaxK &&
                           (header.scale_count == 1 || header.scale_count == header.N);
    const Layout at = has_sizes ? layout_of(header, *family) : Layout{};
    if (!has_sizes || at.size != size) {
        throw std::invalid_argument("its header has been changed: N=" + std::to_string(header.N) +
                                    " and K=" + std::to_string(header.K) + " do not fit its size");
    }
    PackedWeight packed;
    packed.N = header.N;
    packed.K = header.K;
    packed.scale_count = header.scale_count;
    packed.bias_is_nonzero = header.bias_is_nonzero != 0;
    packed.bias_was_given = header.bias_was_given != 0;
    packed.family = family;
    packed.column_sums = reinterpret_cast<const int32_t*>(base + at.column_sums);
    packed.scales = reinterpret_cast<const double*>(base + at.scales);
    packed.bias = reinterpret_cast<const float*>(base + at.bias);
    packed.zero_points = header.has_zero_points ? reinterpret_cast<const int32_t*>(base + at.zero_points) : nullptr;
    packed.pre_scale = header.has_pre_scale ? reinterpret_cast<const float*>(base + at.pre_scale) : nullptr;
    packed.values = reinterpret_cast<const int8_t*>(base + at.values);
    return packed;
}

void unpack(const PackedWeight& weight, int8_t* values) {
    unpack_weights(*weight.family, weight.N, weight.K, weight.values, values);
}

} // namespace acl_qlinear
