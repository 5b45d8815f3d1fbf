// SPDX-License-Identifier: MIT
// SVE_BITS in the environment is the length of SVE vectors that the tests run with.
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstdlib>

#include "tests/support.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

// What ctest takes for "skipped".
constexpr int kSkipped = 77;

bool set_sve_bits(int bits) {
    const int length = prctl(PR_SVE_SET_VL, bits / 8);
    return length >= 0 && (length & PR_SVE_VL_LEN_MASK) == bits / 8;
}

} // namespace

int main(int argc, char** argv) {
    const char* const variable = std::getenv("SVE_BITS");
    const int bits = variable ? static_cast<int>(std::strtol(variable, nullptr, 10)) : 0;
    // Linux takes the longest that the CPU has, up to the one that is asked for.
    if (bits && !set_sve_bits(bits)) {
        std::printf("skipped: this CPU has no SVE vectors of %d bits\n", bits);
        return kSkipped;
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback([] { std::fprintf(stderr, "%s\n", acl_qlinear::testing::current_case().c_str()); });
#endif
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
