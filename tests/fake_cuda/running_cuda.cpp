// A CUDA device that runs in host memory: training on `cuda:0` in a CPU build of torch.
//
// To what `fake_cuda.cpp` supplies (a device guard, hooks, the choice of attention) it adds memory and kernels.
// A tensor's storage is host memory; every operator without a kernel here gets its tensors relabelled as the CPU's,
// without a copy, runs the CPU's kernel, and has its new results copied into memory of the device. So
// the device allocates what operators return; what a CPU kernel needs in between is the host's. Each
// allocation and release is reported to Python (`card.py`), where torch's caching allocator is
// simulated: rounding, segments, peaks and the limit are decided there.

#define FAKE_CUDA_RUNS
#include "fake_cuda.cpp"

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/TensorIterator.h>
#include <ATen/native/Copy.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

// Each returns 0 if there is no room. Set and unset by Python; without them nothing is recorded.
using OnMalloc = int (*)(void*, std::uint64_t);
using OnFree = void (*)(void*);
std::atomic<OnMalloc> on_malloc{nullptr};
std::atomic<OnFree> on_free{nullptr};

constexpr std::size_t kAlignment = 512;

// A release is reported before the next allocation: Python may not be called while it unwinds an exception, and a
// tensor can go at such a time.
std::mutex waiting_lock;
std::vector<void*> waiting;

void release(void* pointer) {
  {
    std::lock_guard<std::mutex> held(waiting_lock);
    waiting.push_back(pointer);
  }
  std::free(pointer);
}

void report_releases() {
  std::vector<void*> gone;
  {
    std::lock_guard<std::mutex> held(waiting_lock);
    gone.swap(waiting);
  }
  auto report = on_free.load();
  for (void* pointer : gone) {
    if (report) {
      report(pointer);
    }
  }
}

struct CardAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t nbytes) override {
    if (nbytes == 0) {
      return {nullptr, nullptr, &c10::detail::deleteNothing, OneDevice::device()};
    }
    void* pointer = std::aligned_alloc(kAlignment, (nbytes + kAlignment - 1) / kAlignment * kAlignment);
    report_releases();
    auto report = on_malloc.load();
    if (report && !report(pointer, nbytes)) {
      std::free(pointer);
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", nbytes, " bytes.");
    }
    return {pointer, pointer, &release, OneDevice::device()};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, std::size_t nbytes) const override {
    std::memcpy(to, from, nbytes);
  }
};

CardAllocator allocator;
REGISTER_ALLOCATOR(c10::DeviceType::CUDA, &allocator)

const c10::DispatchKeySet kCardKeys(c10::DispatchKey::CUDA);

// The host's view of the tensors of one call.
class Relabelled {
 public:
  at::Tensor host(const at::Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) {
      return tensor;
    }
    auto* own = tensor.storage().unsafeGetStorageImpl();
    auto found = storages_.find(own);
    if (found == storages_.end()) {
      auto data = c10::DataPtr(own->mutable_data(), c10::Device(c10::DeviceType::CPU));
      found = storages_
                  .emplace(own, c10::Storage(c10::Storage::use_byte_size_t(), own->nbytes(), std::move(data),
                                             c10::GetCPUAllocator(), /*resizable=*/true))
                  .first;
    }
    auto made = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(found->second), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(
        tensor.sizes(), tensor.strides(), tensor.storage_offset());
    pairs_.emplace_back(tensor, made);
    return made;
  }

  // What a kernel has resized (`out=`) is resized on the device, too.
  void follow() {
    for (auto& [card, host] : pairs_) {
      if (card.sizes() != host.sizes()) {
        card.resize_(host.sizes());
        Relabelled().host(card).copy_(host);
      }
    }
  }

  at::Tensor card(const at::Tensor& result) {
    if (!result.defined()) {
      return result;
    }
    for (auto& [card, host] : pairs_) {
      if (host.unsafeGetTensorImpl() == result.unsafeGetTensorImpl()) {
        return card;
      }
    }
    auto made = at::empty_strided(
        result.sizes(), result.strides(), result.options().device(OneDevice::device()));
    Relabelled().host(made).copy_(result);
    return made;
  }

 private:
  std::unordered_map<c10::StorageImpl*, c10::Storage> storages_;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs_;
};

c10::IValue changed(const c10::IValue& value, const std::function<at::Tensor(const at::Tensor&)>& change) {
  if (value.isTensor()) {
    return change(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> made;
    for (const at::Tensor& one : value.toTensorVector()) {
      made.push_back(change(one));
    }
    return made;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> made;
    for (std::optional<at::Tensor> one : value.toOptionalTensorList()) {
      made.push_back(one ? std::optional<at::Tensor>(change(*one)) : one);
    }
    return made;
  }
  if (value.isDevice()) {
    return c10::Device(c10::DeviceType::CPU);
  }
  return value;
}

// Layer norm keeps mean and deviation in float32 on CUDA, and in the input's type on a CPU.
void moments_in(at::ScalarType dtype, torch::jit::Stack* stack, std::size_t at) {
  for (auto place : {at, at + 1}) {
    (*stack)[place] = (*stack)[place].toTensor().to(dtype);
  }
}

void on_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Relabelled tensors;
  const auto arguments = op.schema().arguments().size();
  const auto first = stack->size() - arguments;
  const std::vector<c10::IValue> kept(stack->begin() + first, stack->end()); // their storages stay alive
  for (auto at = first; at < stack->size(); ++at) {
    (*stack)[at] = changed((*stack)[at], [&](const at::Tensor& one) { return tensors.host(one); });
  }
  const auto& name = op.schema().name();
  if (name == "aten::native_layer_norm_backward") {
    moments_in((*stack)[first + 1].toTensor().scalar_type(), stack, first + 3);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  tensors.follow();
  if (name == "aten::native_layer_norm") {
    moments_in(at::kFloat, stack, stack->size() - 2);
  }
  const auto results = op.schema().returns().size();
  for (auto at = stack->size() - results; at < stack->size(); ++at) {
    (*stack)[at] = changed((*stack)[at], [&](const at::Tensor& one) { return tensors.card(one); });
  }
}

void copy_here(at::TensorIterator& iterator, bool) {
  Relabelled tensors;
  tensors.host(iterator.tensor(0)).copy_(tensors.host(iterator.tensor(1)));
}

using CopyStub = std::remove_reference_t<decltype(at::native::copy_stub)>;
const at::native::RegisterCUDADispatch<CopyStub> copies(at::native::copy_stub, &copy_here);

at::Tensor empty(
    at::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>,
    std::optional<at::MemoryFormat> format) {
  return at::Tensor(
      at::detail::empty_generic(size, &allocator, kCardKeys, c10::dtype_or_default(dtype), format));
}

at::Tensor empty_strided(
    at::IntArrayRef size,
    at::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>,
    std::optional<at::Device>,
    std::optional<bool>) {
  return at::Tensor(
      at::detail::empty_strided_generic(size, stride, &allocator, kCardKeys, c10::dtype_or_default(dtype)));
}

at::Tensor strided(
    const at::Tensor& self,
    at::IntArrayRef size,
    at::IntArrayRef stride,
    std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

at::Tensor view(const at::Tensor& self, at::IntArrayRef size) {
  return at::native::view(self, size);
}

const at::Tensor& resize(
    const at::Tensor& self,
    at::IntArrayRef size,
    std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, size, format);
}

// Memory-efficient attention by its formula, with the results that the kernel has and no dropout.
at::Tensor probabilities(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& bias,
    bool is_causal,
    double scale) {
  auto scores = query.to(at::kFloat).matmul(key.to(at::kFloat).transpose(-2, -1)) * scale;
  if (bias.defined()) {
    scores = scores + bias.to(at::kFloat);
  }
  if (is_causal) {
    const auto later = at::ones({query.size(-2), key.size(-2)}, at::kBool).triu(1);
    scores = scores.masked_fill(later, -1e30);
  }
  return scores.softmax(-1);
}

at::Tensor rows_of_heads(const at::Tensor& like, int64_t width) {
  return at::empty({like.size(0), like.size(2), like.size(1), width}, like.options()).transpose(1, 2);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention(
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const std::optional<at::Tensor>& bias,
    bool compute_log_sumexp,
    double,
    bool is_causal,
    std::optional<double> scale) {
  Relabelled tensors;
  const double factor = scale.value_or(1 / std::sqrt(double(query.size(-1))));
  const auto made = rows_of_heads(query, value.size(-1));
  const auto rows = compute_log_sumexp ? (query.size(2) + 31) / 32 * 32 : 0;
  const auto sums =
      at::empty({query.size(0), query.size(1), rows}, query.options().dtype(at::kFloat));
  const auto number = query.options().dtype(at::kLong);
  const auto shares = probabilities(
      tensors.host(query), tensors.host(key), tensors.host(bias.value_or(at::Tensor())), is_causal, factor);
  tensors.host(made).copy_(shares.matmul(tensors.host(value).to(at::kFloat)));
  return {made, sums, at::empty({}, number), at::empty({}, number)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> attention_backward(
    const at::Tensor& gradient,
    const at::Tensor& query,
    const at::Tensor& key,
    const at::Tensor& value,
    const at::Tensor& bias,
    const at::Tensor&,
    const at::Tensor&,
    const at::Tensor&,
    const at::Tensor&,
    double,
    std::array<bool, 4>,
    bool is_causal,
    std::optional<double> scale) {
  Relabelled tensors;
  const double factor = scale.value_or(1 / std::sqrt(double(query.size(-1))));
  const auto of_query = rows_of_heads(query, query.size(-1));
  const auto of_key = rows_of_heads(key, key.size(-1));
  const auto of_value = rows_of_heads(value, value.size(-1));
  const auto shares =
      probabilities(tensors.host(query), tensors.host(key), tensors.host(bias), is_causal, factor);
  const auto output = tensors.host(gradient).to(at::kFloat);
  const auto change = output.matmul(tensors.host(value).to(at::kFloat).transpose(-2, -1));
  const auto scores = shares * (change - (change * shares).sum(-1, true)) * factor;
  tensors.host(of_query).copy_(scores.matmul(tensors.host(key).to(at::kFloat)));
  tensors.host(of_key).copy_(scores.transpose(-2, -1).matmul(tensors.host(query).to(at::kFloat)));
  tensors.host(of_value).copy_(shares.transpose(-2, -1).matmul(output));
  return {of_query, of_key, of_value, at::Tensor()};
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source) {
  return at::native::set_(self, source);
}

at::Tensor& set_part(
    at::Tensor& self,
    at::Storage source,
    int64_t offset,
    at::IntArrayRef size,
    at::IntArrayRef stride) {
  return at::native::set_storage_cpu_(self, source, offset, size, stride);
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return at::native::set_tensor_(self, source);
}

void record_nothing(at::Tensor&, c10::Stream) {}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_host>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("as_strided", &strided);
  library.impl("view", &view);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("unfold", &at::native::unfold);
  library.impl("resize_", &resize);
  library.impl("record_stream", &record_nothing);
  library.impl("set_.source_Storage", &set_storage);
  library.impl("set_.source_Storage_storage_offset", &set_part);
  library.impl("set_.source_Tensor", &set_tensor);
  library.impl("_scaled_dot_product_efficient_attention", &attention);
  library.impl("_scaled_dot_product_efficient_attention_backward", &attention_backward);
  // A formula and a kernel of the device, as in `fake_cuda.cpp`; and those whose formula is below autograd.
  for (const auto* name :
       {"silu_backward",
        "mish_backward",
        "native_channel_shuffle",
        "_fused_rms_norm",
        "native_layer_norm",
        "native_group_norm",
        "addr"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&on_the_host>());
  }
}

} // namespace

extern "C" __attribute__((visibility("default"))) void fake_cuda_report(OnMalloc malloc, OnFree free) {
  on_malloc.store(malloc);
  on_free.store(free);
}

extern "C" __attribute__((visibility("default"))) void fake_cuda_report_releases() {
  report_releases();
}
