// SPDX-License-Identifier: MIT
// PyTorch, as far as the operators need it. Two files give the same names: aten/ is for one minor of
// PyTorch, stable/ for all from 2.10 on, by LibTorch's stable ABI.
//
//   Tensor, ScalarType, Shape, Sizes, Text   PyTorch's types, or what stands for them
//   CHECK_TYPE, CHECK_VALUE, CHECK_RUNTIME   raise TypeError, ValueError, RuntimeError
//   describe, is_plain_cpu                   of tensors
//   empty, converted, copy                   tensors on the CPU
//   per_tensor_quantization, make_quantized  quantized tensors
//   are_laid_out_alike, make_quantized_like, quantized_add  sums of them
//   about_to_write, resolved, check_writable views, and autograd's counter of writes
//   in_parallel_region, num_threads, parallel_for
#pragma once

#ifdef ACL_QLINEAR_STABLE_ABI
#include "torch/stable/host.h"
#else
#include "torch/aten/host.h"
#endif
