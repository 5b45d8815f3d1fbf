// SPDX-License-Identifier: MIT
// See ../host.h. Of LibTorch's stable ABI only the C functions: the C++ headers that wrap them differ from
// release to release, and those up to 2.12 leak the strings that an operator is called with.
#pragma once

#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/parallel.h"

// No exception but std::runtime_error passes all of PyTorch's releases: acl_qlinear/_stable.py makes the type
// that the message begins with of it.
#define CHECK_AS(kind, condition, ...)                     \
    do {                                                   \
        if (!(condition)) {                                \
            ::acl_qlinear::host::raise(kind, __VA_ARGS__); \
        }                                                  \
    } while (false)
#define CHECK_TYPE(...) CHECK_AS("TypeError: ", __VA_ARGS__)
#define CHECK_VALUE(...) CHECK_AS("ValueError: ", __VA_ARGS__)
#define CHECK_RUNTIME(...) CHECK_AS("", __VA_ARGS__)

namespace acl_qlinear::host {

using ScalarType = torch::headeronly::ScalarType;
using Sizes = std::vector<int64_t>;
using Text = std::string_view;

template <typename... Parts> [[noreturn]] void raise(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw std::runtime_error(text.str());
}

// What PyTorch says of an error, it writes to stderr.
inline void check_call(AOTITorchError code, const char* what) {
    CHECK_RUNTIME(code == 0, "PyTorch cannot ", what);
}

// Sizes that somebody else keeps alive.
class Shape {
public:
    Shape(const int64_t* data, size_t size) : data_(data), size_(size) {}
    // NOLINTNEXTLINE(misc-explicit-constructor): as at::IntArrayRef.
    Shape(const Sizes& sizes) : data_(sizes.data()), size_(sizes.size()) {}

    const int64_t* begin() const { return data_; }
    const int64_t* end() const { return data_ + size_; }
    size_t size() const { return size_; }

    bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

    friend std::ostream& operator<<(std::ostream& stream, const Shape& shape) {
        const char* separator = "";
        stream << '[';
        for (const int64_t size : shape) {
            stream << separator << size;
            separator = ", ";
        }
        return stream << ']';
    }

private:
    const int64_t* data_;
    size_t size_;
};

// What 64 bits of a stack stand for, and the other way round.
template <typename T> T from_bits(StableIValue value) {
    T result;
    std::memcpy(static_cast<void*>(&result), &value, sizeof(T));
    return result;
}

template <typename T> StableIValue to_bits(T value) {
    StableIValue result = 0;
    std::memcpy(&result, static_cast<const void*>(&value), sizeof(T));
    return result;
}

class Tensor {
public:
    Tensor() = default;
    explicit Tensor(AtenTensorHandle owned) : handle_(owned) {}
    Tensor(const Tensor& other) : handle_(other.handle_ ? other.new_handle() : nullptr) {}
    Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Tensor& operator=(Tensor other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~Tensor() {
        if (handle_) {
            aoti_torch_delete_tensor_object(handle_);
        }
    }

    AtenTensorHandle handle() const { return handle_; }
    // Another one for the same tensor, which is the caller's to delete.
    AtenTensorHandle new_handle() const {
        return get<AtenTensorHandle>(aoti_torch_new_tensor_handle, "hand a tensor on");
    }
    // This one, which is then the caller's.
    AtenTensorHandle release() { return std::exchange(handle_, nullptr); }

    bool defined() const { return handle_ && get<bool>(aoti_torch_is_defined, "look at a tensor"); }
    // The numbers of the types are what saved models have: they do not change.
    ScalarType scalar_type() const {
        return static_cast<ScalarType>(get<int32_t>(aoti_torch_get_dtype, "tell a tensor's dtype"));
    }
    bool is_quantized() const { return torch::headeronly::isQIntType(scalar_type()); }
    int64_t dim() const { return get<int64_t>(aoti_torch_get_dim, "tell a tensor's dim"); }
    int64_t numel() const { return get<int64_t>(aoti_torch_get_numel, "tell a tensor's numel"); }
    Shape sizes() const {
        return {get<int64_t*>(aoti_torch_get_sizes, "tell a tensor's sizes"), static_cast<size_t>(dim())};
    }
    int64_t size(int64_t i) const { return sizes().begin()[i < 0 ? i + dim() : i]; }
    int64_t stride(int64_t i) const { return get<int64_t*>(aoti_torch_get_strides, "tell a tensor's strides")[i]; }
    size_t element_size() const { return aoti_torch_dtype_element_size(static_cast<int32_t>(scalar_type())); }
    size_t nbytes() const { return static_cast<size_t>(numel()) * element_size(); }
    bool is_contiguous() const { return get<bool>(aoti_torch_is_contiguous, "look at a tensor's strides"); }
    Tensor contiguous() const;
    const void* const_data_ptr() const { return get<const void*>(torch_get_const_data_ptr, "read a tensor"); }
    void* mutable_data_ptr() const { return get<void*>(torch_get_mutable_data_ptr, "write to a tensor"); }
    template <typename T> const T* const_data_ptr() const { return static_cast<const T*>(const_data_ptr()); }
    template <typename T> T* mutable_data_ptr() const { return static_cast<T*>(mutable_data_ptr()); }

private:
    template <typename T> T get(AOTITorchError (*function)(AtenTensorHandle, T*), const char* what) const {
        T result;
        check_call(function(handle_, &result), what);
        return result;
    }

    AtenTensorHandle handle_ = nullptr;
};

// Calls an operator of PyTorch's, which takes the handles on the stack.
template <size_t size> StableIValue call(const char* name, const char* overload, std::array<StableIValue, size> stack) {
    check_call(torch_call_dispatcher(name, overload, stack.data(), TORCH_ABI_VERSION), name);
    return stack[0];
}

inline Tensor Tensor::contiguous() const {
    if (is_contiguous()) {
        return *this;
    }
    const auto format = to_bits(aoti_torch_memory_format_contiguous_format());
    return Tensor(from_bits<AtenTensorHandle>(call<2>("aten::contiguous", "", {to_bits(new_handle()), format})));
}

// A tensor whose elements can be read where its strides say.
bool is_plain_cpu(const Tensor& t);

std::string describe(const Tensor& t);

inline Tensor empty(Shape sizes, ScalarType type) {
    Sizes strides(sizes.size());
    int64_t stride = 1;
    for (size_t i = sizes.size(); i > 0; --i) {
        strides[i - 1] = stride;
        stride *= std::max<int64_t>(sizes.begin()[i - 1], 1);
    }
    AtenTensorHandle result;
    check_call(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.begin(), strides.data(),
                                        static_cast<int32_t>(type), aoti_torch_device_type_cpu(), 0, &result),
               "make a tensor");
    return Tensor(result);
}

// The values as another type, contiguous.
inline Tensor converted(const Tensor& t, ScalarType type) {
    return Tensor(from_bits<AtenTensorHandle>(
                      call<5>("aten::to", "dtype",
                              {to_bits(t.new_handle()), to_bits(static_cast<int32_t>(type)), 0, 0, /*no format*/ 0})))
        .contiguous();
}

inline void copy(const Tensor& from, const Tensor& to) {
    check_call(aoti_torch_copy_(to.handle(), from.handle(), /*non_blocking=*/0), "copy a tensor");
}

// Scale and zero point of a quantized tensor; none where each channel has its own.
inline std::optional<std::pair<double, int64_t>> per_tensor_quantization(const Tensor& x) {
    std::array<StableIValue, 1> scale{to_bits(x.new_handle())};
    if (torch_call_dispatcher("aten::q_scale", "", scale.data(), TORCH_ABI_VERSION)) {
        return std::nullopt;
    }
    return {{from_bits<double>(scale[0]),
             from_bits<int64_t>(call<1>("aten::q_zero_point", "", {to_bits(x.new_handle())}))}};
}

// A tensor of quantized type; `write` has written to a plain one.
template <typename Write>
Tensor make_quantized(Shape sizes, ScalarType type, double scale, int64_t zero_point, const Write& write) {
    Tensor y = empty(sizes, torch::headeronly::toUnderlying(type));
    write(y);
    return Tensor(from_bits<AtenTensorHandle>(call<3>("aten::_make_per_tensor_quantized_tensor", "",
                                                      {to_bits(y.release()), to_bits(scale), to_bits(zero_point)})));
}

// Whether both have their elements in the same places of memory without gaps. The ABI makes contiguous results alone.
inline bool are_laid_out_alike(const Tensor& a, const Tensor& b) {
    return a.is_contiguous() && b.is_contiguous();
}

// As make_quantized, with the sizes of `like`.
template <typename Write>
Tensor make_quantized_like(const Tensor& like, double scale, int64_t zero_point, const Write& write) {
    return make_quantized(like.sizes(), like.scalar_type(), scale, zero_point, write);
}

// torch.ops.quantized.add, or add_relu.
inline Tensor quantized_add(const Tensor& a, const Tensor& b, double scale, int64_t zero_point, bool relu) {
    const char* const name = relu ? "quantized::add_relu" : "quantized::add";
    return Tensor(from_bits<AtenTensorHandle>(
        call<4>(name, "", {to_bits(a.new_handle()), to_bits(b.new_handle()), to_bits(scale), to_bits(zero_point)})));
}

// Where out= is given, acl_qlinear/_stable.py does what the ABI cannot: views of negatives and conjugates, and
// the counter of writes.
inline Tensor resolved(const Tensor& x) {
    return x;
}

inline void check_writable(const char* /*op*/, const Tensor& /*out*/) {}

inline void about_to_write(const Tensor& /*out*/) {}

bool in_parallel_region();

int64_t num_threads();

void parallel_for(int64_t count, RangeFunction f);

} // namespace acl_qlinear::host
