// SPDX-License-Identifier: MIT
// What PyTorch sees of the library, by LibTorch's stable ABI.
#include <memory>
#include <type_traits>

#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

using host::check_call;
using host::from_bits;
using host::to_bits;

// A string that a kernel has got.
class String {
public:
    explicit String(StringHandle owned) : handle_(owned) {}
    String(String&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    String& operator=(String&&) = delete;
    ~String() {
        if (handle_) {
            torch_delete_string(handle_);
        }
    }

    operator Text() const { // NOLINT(misc-explicit-constructor): kernels take a view.
        const char* data;
        size_t length;
        check_call(torch_string_c_str(handle_, &data), "read a string");
        check_call(torch_string_length(handle_, &length), "read a string");
        return {data, length};
    }

private:
    StringHandle handle_;
};

template <typename T> constexpr bool is_optional = false;
template <typename T> constexpr bool is_optional<std::optional<T>> = true;

// An argument, and what it owns.
template <typename Parameter> auto take(StableIValue value) {
    using T = std::remove_cv_t<std::remove_reference_t<Parameter>>;
    if constexpr (std::is_same_v<T, Tensor>) {
        return Tensor(from_bits<AtenTensorHandle>(value));
    } else if constexpr (std::is_same_v<T, Text>) {
        return String(from_bits<StringHandle>(value));
    } else if constexpr (std::is_same_v<T, ScalarType>) {
        return static_cast<ScalarType>(from_bits<int32_t>(value));
    } else if constexpr (is_optional<T>) {
        const std::unique_ptr<StableIValue> inner(from_bits<StableIValue*>(value));
        return inner ? T(take<typename T::value_type>(*inner)) : T();
    } else {
        return from_bits<T>(value);
    }
}

StableIValue give(Tensor result) {
    return to_bits(result.release());
}

StableIValue give(const std::string& result) {
    StringHandle handle;
    check_call(torch_new_string_handle(result.data(), result.size(), &handle), "make a string");
    return to_bits(handle);
}

StableIValue give(int64_t result) {
    return to_bits(result);
}

void put(StableIValue* stack, std::tuple<Tensor, Tensor, Tensor, Tensor> results) {
    std::apply([&](auto&... result) { ((*stack++ = give(std::move(result))), ...); }, results);
}

template <typename T> void put(StableIValue* stack, T&& result) {
    *stack = give(std::forward<T>(result));
}

template <auto function> struct Boxed;

// A function as PyTorch calls it: arguments on a stack, which then gets the results.
template <typename Result, typename... Parameters, Result (*function)(Parameters...)> struct Boxed<function> {
    static void call(StableIValue* stack, uint64_t /*arguments*/, uint64_t /*results*/) {
        auto arguments = take_all(stack, std::index_sequence_for<Parameters...>());
        if constexpr (std::is_void_v<Result>) {
            std::apply(function, arguments);
        } else {
            put(stack, std::apply(function, arguments));
        }
    }

    template <size_t... i> static auto take_all(const StableIValue* stack, std::index_sequence<i...> /*positions*/) {
        return std::tuple<decltype(take<Parameters>(0))...>{take<Parameters>(stack[i])...};
    }
};

struct Implement {
    TorchLibraryHandle library;

    template <auto function> void add(const char* name) {
        check_call(torch_library_impl(library, name, Boxed<function>::call, TORCH_ABI_VERSION), "register an operator");
    }
};

// They last as long as the process: PyTorch has the kernels. An error ends it, as one in a TORCH_LIBRARY does.
// NOLINTNEXTLINE(bugprone-throwing-static-initialization)
[[maybe_unused]] const bool is_registered = [] {
    TorchLibraryHandle definitions, kernels;
    check_call(aoti_torch_library_init_def("acl_qlinear", __FILE__, __LINE__, &definitions), "make a library");
    for (const char* const schema : schemas) {
        check_call(aoti_torch_library_def(definitions, schema), schema);
    }
    // For tensors of every kind and device, so that those of a wrong one reach the checks.
    check_call(aoti_torch_library_init_impl("acl_qlinear", "CompositeExplicitAutograd", __FILE__, __LINE__, &kernels),
               "make a library");
    implement_all(Implement{kernels});
    return true;
}();

} // namespace
} // namespace acl_qlinear::operators
