// SPDX-License-Identifier: MIT
/* Runs a package of examples/aot_inductor.py, without Python:

     TORCH=$(python -c "import torch; print(torch.__path__[0])")
     $CXX -std=c++17 -isystem $TORCH/include -isystem $TORCH/include/torch/csrc/api/include examples/aot_inductor.cpp \
         -o run_model -L $TORCH/lib -Wl,-rpath,$TORCH/lib -ltorch -ltorch_cpu -lc10 -ldl
     ./run_model LIBRARY model.pt2 TOKENS

   LIBRARY is what examples/aot_inductor.py printed: it has the int8 operators. */
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: %s LIBRARY MODEL.pt2 TOKENS\n", argv[0]);
        return 2;
    }
    if (!dlopen(argv[1], RTLD_NOW)) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    const c10::InferenceMode inference;
    torch::inductor::AOTIModelPackageLoader model(argv[2]);
    constexpr int64_t features = 64;
    const int64_t tokens = std::atoll(argv[3]);
    const torch::Tensor x = torch::linspace(-1, 1, tokens * features).reshape({tokens, features});
    const torch::Tensor y = model.run({x}).at(0).contiguous();
    for (int64_t i = 0; i < y.numel(); ++i) {
        std::printf("%.9g\n", y.const_data_ptr<float>()[i]);
    }
}
