// A CUDA device that does not exist: enough of one for torch's own C++ to take its CUDA branches.
//
// A CPU-only build of torch can make fake tensors (shapes without data) that claim to be on `cuda:0`.
// They dispatch as CUDA tensors do: `is_cuda()` holds, autocast uses CUDA's lists, dropout is fused.
// Four things keep such a tensor from going through a training step as on a card, and each is supplied
// here. No kernel is: a fake tensor never runs one.
//
// Loaded before libtorch's own static initialisers are done with, that is before `import torch`.

#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdint>
#include <optional>
#include <type_traits>

namespace {

// 1. A device guard. Every operator on a device enters one ("PyTorch is not linked with support for cuda
//    devices" without it), and autograd asks it for the number of devices, to start a thread for
//    each, and for streams and events, to order the backward pass after the forward. There is one
//    device with one stream, and nothing ever runs on it, so there is nothing to wait for.
constexpr auto kType = c10::DeviceType::CUDA;

struct OneDevice final : c10::impl::NoOpDeviceGuardImpl<kType> {
  // The no-op guard answers with index -1, "the current device"; autograd compares devices by index.
  static c10::Device device() {
    return c10::Device(kType, 0);
  }
  static c10::Stream stream() {
    return c10::Stream(c10::Stream::DEFAULT, device());
  }

  c10::Device getDevice() const override {
    return device();
  }
  c10::Device exchangeDevice(c10::Device) const override {
    return device();
  }
  c10::Stream getStream(c10::Device) const noexcept override {
    return stream();
  }
  c10::Stream getDefaultStream(c10::Device) const override {
    return stream();
  }
  c10::Stream exchangeStream(c10::Stream) const noexcept override {
    return stream();
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
};

C10_REGISTER_GUARD_IMPL(CUDA, OneDevice)

// 2. Which kernel scaled dot product attention takes. On a card this looks at the inputs and at the
//    card (ATen/native/transformers/cuda/sdp_utils.cpp, which a CPU build does not have); a test says
//    what it is to answer, with the numbers of `at::SDPBackend`: 0 math, 1 flash, 2 memory-efficient,
//    3 cuDNN. What is done around the kernel (masks, padding of heads) is in the CPU build.
std::int64_t chosen_attention = 0;

std::int64_t choose_attention(
    const at::Tensor&,
    const at::Tensor&,
    const at::Tensor&,
    const std::optional<at::Tensor>&,
    double,
    bool,
    std::optional<double>,
    bool) {
  return chosen_attention;
}

using AttentionStub = std::remove_reference_t<decltype(at::native::_fused_sdp_choice_stub)>;
const at::native::RegisterCUDADispatch<AttentionStub> choice(
    at::native::_fused_sdp_choice_stub,
    &choose_attention);

} // namespace

namespace at {

// 3. The hooks that say that CUDA was built. Autograd adds up gradients on the accelerator's stream,
//    and "Cannot access accelerator device when none is available" is what it says without one.
//    `isAvailable` stays false: nothing may try to initialise a driver.
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  bool isBuilt() const override {
    return true;
  }
  bool hasPrimaryContext(DeviceIndex) const override {
    return false;
  }
};

// Registered under the name that `at::detail::getCUDAHooks` looks for, `CUDAHooks`.
REGISTER_CUDA_HOOKS(CUDAHooks)

} // namespace at

#ifndef FAKE_CUDA_RUNS // `running_cuda.cpp` has kernels
namespace {

// 4. The kernels that decide how autograd sees an operator. One that is a formula of others
//    (CompositeImplicitAutograd) is taken apart, and what the formula saves is saved, unless there is a kernel
//    for the device. These are the ones in native_functions.yaml that have a formula and a kernel
//    for CUDA: on a card each is one operator with a derivative of its own.
void never_runs(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK(false, op.schema().name(), " has no data to run on");
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  for (const auto* name :
       {"silu_backward", "mish_backward", "native_channel_shuffle", "_fused_rms_norm"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&never_runs>());
  }
}

} // namespace
#endif

extern "C" __attribute__((visibility("default"))) void fake_cuda_choose_attention(std::int64_t backend) {
  chosen_attention = backend;
}
