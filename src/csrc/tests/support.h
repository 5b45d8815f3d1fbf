// SPDX-License-Identifier: MIT
// What the tests share: memory with an end that is noticed, random numbers, and the arithmetic
// that is promised, on scalars.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/types.h"
#include "kernels/families.h"

namespace acl_qlinear::testing {

// `count` zeros, followed at once by a page that can be neither read nor written. It catches what
// AddressSanitizer does not see: ACL's assembly.
template <typename T> class Guarded {
public:
    // alignment: of the first value, in bytes; at most so many bytes less one are between the end and the page.
    explicit Guarded(size_t count, size_t alignment = alignof(T)) : count_(count) {
        const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t size = count * sizeof(T), usable = (size + alignment + page - 1) / page * page;
        mapped_ = usable + page;
        void* const block = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED || mprotect(static_cast<char*>(block) + usable, page, PROT_NONE)) {
            std::perror("Guarded");
            std::abort();
        }
        block_ = static_cast<char*>(block);
        data_ = reinterpret_cast<T*>(block_ + (usable - size) / alignment * alignment);
    }

    explicit Guarded(const std::vector<T>& values) : Guarded(values.size()) {
        std::copy(values.begin(), values.end(), data_);
    }

    ~Guarded() { munmap(block_, mapped_); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    T* data() { return data_; }
    const T* data() const { return data_; }
    size_t size() const { return count_; }
    T* begin() { return data_; }
    T* end() { return data_ + count_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }

private:
    size_t count_, mapped_;
    char* block_;
    T* data_;
};

// What is being tried; printed where a sanitizer ends the process.
inline std::string& current_case() {
    static std::string description;
    return description;
}

// The same numbers wherever it runs: the standard's distributions are the library's own.
class Random {
public:
    explicit Random(uint32_t seed) : engine_(seed) {}

    // A number of [low, high].
    int64_t integer(int64_t low, int64_t high) {
        return low + static_cast<int64_t>(bits64() % static_cast<uint64_t>(high - low + 1));
    }

    double real(double low, double high) {
        return low + (high - low) * (static_cast<double>(bits64() >> 11) * 0x1p-53);
    }

    template <typename T, size_t count> T one_of(const T (&all)[count], int64_t first = 0) {
        return all[integer(first, count - 1)];
    }

    template <typename Values> void fill_bytes(Values& values) {
        auto* const bytes = reinterpret_cast<unsigned char*>(values.data());
        for (size_t i = 0; i < values.size() * sizeof(*values.data()); ++i) {
            bytes[i] = static_cast<unsigned char>(engine_());
        }
    }

private:
    uint64_t bits64() {
        const uint64_t high = engine_();
        return high << 32 | engine_();
    }

    std::mt19937 engine_;
};

// Every family that this CPU can run.
inline std::vector<const KernelFamily*> families_here() {
    std::vector<const KernelFamily*> found;
    for (const KernelFamily& family : all_families()) {
        if (family.runs_here()) {
            found.push_back(&family);
        }
    }
    return found;
}

inline float float_of_bf16(uint16_t x) {
    const uint32_t bits = uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float float_of_f16(uint16_t x) {
    __fp16 value;
    std::memcpy(&value, &x, sizeof value);
    return value;
}

inline uint16_t f16_of_float(float x) {
    const auto value = static_cast<__fp16>(x);
    uint16_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// To nearest, ties to even, by choosing the closer one of both neighbours.
inline uint16_t bf16_of_float(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const auto below = static_cast<uint16_t>(bits >> 16);
    const uint32_t rest = bits & 0xffff;
    const bool is_up = rest > 0x8000 || (rest == 0x8000 && below % 2 == 1);
    return static_cast<uint16_t>(below + is_up);
}

// To nearest, ties to even; infinities and what is beyond int32_t saturate.
inline int64_t rounded(double value) {
    return static_cast<int64_t>(std::nearbyint(std::fmin(std::fmax(value, INT32_MIN), INT32_MAX)));
}

template <typename T> T saturated(int64_t value) {
    return static_cast<T>(std::clamp<int64_t>(value, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

} // namespace acl_qlinear::testing
