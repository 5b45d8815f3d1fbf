// SPDX-License-Identifier: MIT
#include "kernels/acl_kernels.h"

#include <dlfcn.h>

#include <algorithm>

#include "arm_compute/core/CPP/CPPTypes.h"
#include "src/cpu/kernels/assembly/arm_gemm.hpp"

namespace acl_qlinear::acl {

std::vector<Estimate> estimate(int64_t N, int64_t K) {
    // ACL estimates from measurements on real cores. It has no estimate for the shortest K, and for
    // long ones it counts passes of its driver over the results, which are not made here.
    const arm_gemm::GemmConfig any;
    const arm_gemm::GemmArgs args(&arm_compute::CPUInfo::get(), /*M=*/96, static_cast<unsigned>(N),
                                  static_cast<unsigned>(std::clamp<int64_t>(K, 16, 512)), /*Ksections=*/1,
                                  /*nbatches=*/1,
                                  /*nmulti=*/1, /*indirect_input=*/false, arm_gemm::Activation(), /*maxthreads=*/1,
                                  /*fixed_format=*/false, /*fast_mode=*/false, /*accumulate=*/false, &any);
    std::vector<Estimate> estimates;
    for (const auto& kernel : arm_gemm::get_compatible_kernels<int8_t, int8_t, int32_t>(args)) {
        estimates.push_back({kernel.name, kernel.cycle_estimate});
    }
    return estimates;
}

bool cpu_has(IsaFeature feature) {
    const arm_compute::CPUInfo& cpu = arm_compute::CPUInfo::get();
    switch (feature) {
    case IsaFeature::none: return true;
    case IsaFeature::dot_product: return cpu.has_dotprod();
    case IsaFeature::i8mm: return cpu.has_i8mm();
    case IsaFeature::sve: return cpu.has_sve();
    case IsaFeature::sve_i8mm: return cpu.has_svei8mm();
    }
    return false;
}

const char* library_path() {
    Dl_info library{};
    return dladdr(reinterpret_cast<void*>(&arm_compute::CPUInfo::get), &library) ? library.dli_fname : "";
}

} // namespace acl_qlinear::acl
