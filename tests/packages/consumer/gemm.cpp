// SPDX-License-Identifier: MIT
// An fp32 GEMM on the installed library, checked element by element against plain sums.

#include <arm_compute/runtime/NEON/functions/NEGEMM.h>
#include <arm_compute/runtime/Tensor.h>

#include <cmath>
#include <cstdio>

using namespace arm_compute;

static float& at(Tensor& tensor, int column, int row) {
    return *reinterpret_cast<float*>(tensor.ptr_to_element(Coordinates(column, row)));
}

int main() {
    const int m = 7, k = 33, n = 19;
    Tensor a, b, out;
    a.allocator()->init(TensorInfo(TensorShape(k, m), 1, DataType::F32));
    b.allocator()->init(TensorInfo(TensorShape(n, k), 1, DataType::F32));
    out.allocator()->init(TensorInfo(TensorShape(n, m), 1, DataType::F32));
    NEGEMM gemm;
    gemm.configure(&a, &b, nullptr, &out, 1.0f, 0.0f);
    for (Tensor* tensor : {&a, &b, &out}) tensor->allocator()->allocate();
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < k; ++j) at(a, j, i) = static_cast<float>((i * 7 + j * 3) % 11 - 5);
    for (int i = 0; i < k; ++i)
        for (int j = 0; j < n; ++j) at(b, j, i) = static_cast<float>((i * 5 + j * 2) % 13 - 6);
    gemm.run();
    int wrong = 0;
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < n; ++j) {
            float sum = 0;
            for (int l = 0; l < k; ++l) sum += at(a, l, i) * at(b, j, l);
            wrong += std::fabs(at(out, j, i) - sum) > 1e-3f;
        }
    std::printf("gemm: %d of %d elements wrong\n", wrong, m * n);
    return wrong != 0;
}
