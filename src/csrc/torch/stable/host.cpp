// SPDX-License-Identifier: MIT
#include "torch/stable/host.h"

// Of the OpenMP runtime that PyTorch brings, if it has one.
extern "C" [[gnu::weak]] int omp_in_parallel();

namespace acl_qlinear::host {
namespace {

std::string device_of(const Tensor& t) {
    int32_t type, index;
    check_call(aoti_torch_get_device_type(t.handle(), &type), "tell a tensor's device");
    check_call(aoti_torch_get_device_index(t.handle(), &index), "tell a tensor's device");
    const std::string number = index < 0 ? "" : ":" + std::to_string(index);
    if (type == aoti_torch_device_type_cpu()) {
        return "cpu";
    }
    if (type == aoti_torch_device_type_meta()) {
        return "meta";
    }
    return (type == aoti_torch_device_type_cuda() ? "cuda" : "device " + std::to_string(type)) + number;
}

std::string layout_of(const Tensor& t) {
    int32_t layout;
    check_call(aoti_torch_get_layout(t.handle(), &layout), "tell a tensor's layout");
    const std::pair<int32_t, const char*> names[] = {
        {aoti_torch_layout_strided(), ""},
        {aoti_torch_layout_sparse_coo(), ", layout Sparse"},
        {aoti_torch_layout_sparse_csr(), ", layout SparseCsr"},
        {aoti_torch_layout_sparse_csc(), ", layout SparseCsc"},
        {aoti_torch_layout_sparse_bsr(), ", layout SparseBsr"},
        {aoti_torch_layout_sparse_bsc(), ", layout SparseBsc"},
        {aoti_torch_layout__mkldnn(), ", layout Mkldnn"},
        {aoti_torch_layout_jagged(), ", layout Jagged"},
    };
    for (const auto& [known, name] : names) {
        if (layout == known) {
            return name;
        }
    }
    return ", layout " + std::to_string(layout);
}

// Nested tensors have no sizes.
bool has_sizes(const Tensor& t) {
    int64_t* sizes;
    return aoti_torch_get_sizes(t.handle(), &sizes) == 0;
}

} // namespace

bool is_plain_cpu(const Tensor& t) {
    int32_t type, layout;
    return t.defined() && aoti_torch_get_device_type(t.handle(), &type) == 0 && type == aoti_torch_device_type_cpu() &&
           aoti_torch_get_layout(t.handle(), &layout) == 0 && layout == aoti_torch_layout_strided() && has_sizes(t);
}

std::string describe(const Tensor& t) {
    if (!t.defined()) {
        return "None";
    }
    std::ostringstream text;
    text << t.scalar_type() << ' ';
    if (has_sizes(t)) {
        text << t.sizes() << ' ';
    }
    text << "on " << device_of(t) << layout_of(t);
    return text.str();
}

bool in_parallel_region() {
    return omp_in_parallel && omp_in_parallel();
}

int64_t num_threads() {
    uint32_t count;
    check_call(torch_get_num_threads(&count), "tell its number of threads");
    return count;
}

void parallel_for(int64_t count, RangeFunction f) {
    const auto call_range = [](int64_t begin, int64_t end, void* function) {
        (*static_cast<const RangeFunction*>(function))(begin, end);
    };
    check_call(torch_parallel_for(0, count, /*grain_size=*/1, call_range, &f), "use its threads");
}

} // namespace acl_qlinear::host
