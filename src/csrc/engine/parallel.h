// SPDX-License-Identifier: MIT
// Threads, which whoever calls the engine gives it.
#pragma once

#include <cstdint>

namespace acl_qlinear {

// A function of a range [begin, end) that somebody else keeps alive: std::function without its
// allocation.
class RangeFunction {
public:
    template <typename F>
    // NOLINTNEXTLINE(misc-explicit-constructor): stands for any function, as std::function does.
    RangeFunction(const F& f)
        : function_(&f), call_([](const void* function, int64_t begin, int64_t end) {
              (*static_cast<const F*>(function))(begin, end);
          }) {}

    void operator()(int64_t begin, int64_t end) const { call_(function_, begin, end); }

private:
    const void* function_;
    void (*call_)(const void* function, int64_t begin, int64_t end);
};

struct Parallel {
    int64_t num_threads;
    // The least work that a thread is worth, in multiply-accumulates.
    int64_t grain;
    // Calls `f` with ranges that cover [0, count) once, each on a thread of its own, and returns
    // when all calls have.
    void (*parallel_for)(int64_t count, RangeFunction f);
};

} // namespace acl_qlinear
