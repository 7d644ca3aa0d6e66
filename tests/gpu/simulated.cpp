// A device "simulated" in host memory, for tests of tensors on an accelerator where there is none. Every operator runs
// on copies on the CPU. As on an accelerator, operators refuse tensors of different devices; float64 can be refused and
// the memory limited, and each time that values are fetched from the device is counted.

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

#include <atomic>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

namespace {

constexpr auto KIND = c10::DeviceType::PrivateUse1;
const c10::Device DEVICE(KIND, 0);

std::atomic<int64_t> limit{0}, held{0}, fetches{0};  // bytes that may be held (0: any number), and that are; fetched values
std::atomic<bool> doubles{true};                     // whether there is float64
thread_local bool falling = false;                   // whether an operator runs on copies now
std::mutex guard;
std::unordered_map<void*, int64_t> sizes;

void release(void* memory) {
  if (memory == nullptr) return;
  {
    const std::lock_guard<std::mutex> lock(guard);
    held -= sizes[memory];
    sizes.erase(memory);
  }
  c10::free_cpu(memory);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const auto wanted = static_cast<int64_t>(bytes);
    if (wanted == 0) return {nullptr, nullptr, &release, DEVICE};
    TORCH_CHECK_WITH(OutOfMemoryError, limit == 0 || held + wanted <= limit, "simulated out of memory. Tried to allocate ",
                     wanted, " bytes, ", held.load(), " of ", limit.load(), " are in use.");
    void* memory = c10::alloc_cpu(bytes);
    const std::lock_guard<std::mutex> lock(guard);
    sizes[memory] = wanted;
    held += wanted;
    return {memory, memory, &release, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override { default_copy_data(to, from, count); }
};

Memory memory;
REGISTER_ALLOCATOR(KIND, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::Stream exchangeStream(c10::Stream) const override { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto fresh = memory.allocate(bytes);
    const auto common = std::min(bytes, storage.nbytes());
    if (common > 0) std::memcpy(fresh.get(), storage.data(), common);
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

void check(c10::ScalarType type) {
  TORCH_CHECK_TYPE(doubles || (type != c10::kDouble && type != c10::kComplexDouble),
                   "Cannot convert a tensor to float64 on the simulated device, which has none. Use float32 instead.");
}

at::Tensor empty(c10::SymIntArrayRef size, std::optional<c10::ScalarType> type, std::optional<c10::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const auto dtype = c10::dtype_or_default(type);
  check(dtype);
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype, format);
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::ScalarType> type,
                         std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  const auto dtype = c10::dtype_or_default(type);
  check(dtype);
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype);
}

// The same memory as a tensor on the CPU.
at::Tensor seen(const at::Tensor& tensor) {
  if (!tensor.is_privateuseone()) return tensor;
  auto alias = at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(c10::kCPU));
  if (tensor.is_conj()) alias._set_conj(true);
  if (tensor.is_neg()) alias._set_neg(true);
  return alias;
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& target, bool) {
  if (!falling && target.is_cpu() && target.numel() > 0) fetches++;
  seen(target).copy_(seen(self));
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& target) {
  if (target.sizes() != self.sizes()) target.resize_(self.sizes());
  seen(target).copy_(seen(self));
  return target;
}

const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<c10::MemoryFormat>) {
  const auto sizes_ = C10_AS_INTARRAYREF_SLOW(size);
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes_);
  const auto bytes = (self.storage_offset() + impl->numel()) * self.element_size();
  if (self.storage().nbytes() < static_cast<size_t>(bytes)) {
    at::globalContext();
    at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(self.storage(), bytes);
  }
  return self;
}

c10::Scalar local_scalar(const at::Tensor& self) {
  if (!falling) fetches++;
  return at::_local_scalar_dense(seen(self));
}

bool equal(const at::Tensor& self, const at::Tensor& other) {
  TORCH_CHECK(self.device() == other.device(), "Expected all tensors to be on the same device");
  fetches++;
  return at::equal(seen(self), seen(other));
}

at::Tensor& set_storage(at::Tensor& self, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size,
                        c10::SymIntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_and_dtype(std::move(source), self.dtype());
  auto strides = C10_AS_INTARRAYREF_SLOW(stride).vec();
  if (strides.empty() && size.size() == 1) strides = {1};  // torch leaves them out for contiguous tensors
  self.unsafeGetTensorImpl()->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), strides, offset.expect_int());
  return self;
}

// Runs something on copies on the CPU and brings the tensors that it returns back.
struct Falling {
  bool before = falling;
  Falling() { falling = true; }
  ~Falling() { falling = before; }
};

at::Tensor there(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(DEVICE) : tensor; }

std::optional<at::Tensor> own(const std::optional<at::Tensor>& tensor) {
  return tensor && tensor->defined() ? std::optional<at::Tensor>(seen(*tensor)) : std::nullopt;
}

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  TORCH_CHECK(input.device() == weight.device() && (!bias || !bias->defined() || bias->device() == weight.device()),
              "Expected all tensors to be on the same device");
  const Falling now;
  return there(at::convolution(seen(input), seen(weight), own(bias), stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> mask) {
  const Falling now;
  const std::vector<int64_t> sizes = {transposed ? weight.size(1) * groups : weight.size(0)};
  auto [a, b, c] = at::convolution_backward(seen(grad), seen(input), seen(weight), sizes, stride, padding, dilation,
                                            transposed, output_padding, groups, mask);
  return {there(a), there(b), there(c)};
}

// Writes to the running statistics, which its schema does not say.
std::tuple<at::Tensor, at::Tensor, at::Tensor> batch_norm(
    const at::Tensor& input, const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias,
    const std::optional<at::Tensor>& mean, const std::optional<at::Tensor>& variance, bool training, double momentum,
    double eps) {
  for (const auto& tensor : {weight, bias, mean, variance})
    TORCH_CHECK(!tensor || !tensor->defined() || tensor->device() == input.device(),
                "Expected all tensors to be on the same device, but native_batch_norm got one on the CPU");
  const Falling now;
  auto [a, b, c] = at::native_batch_norm(seen(input), own(weight), own(bias), own(mean), own(variance), training, momentum, eps);
  return {there(a), there(b), there(c)};
}

const std::set<std::string> INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::_index_put_impl_",
                                        "aten::index.Tensor_out", "aten::_unsafe_index.Tensor"};

void check_devices(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto name = c10::toString(op.operator_name());
  const auto count = schema.arguments().size();
  for (size_t place = 0; place < count; place++) {
    const auto& value = (*stack)[stack->size() - count + place];
    std::vector<at::Tensor> tensors;
    if (value.isTensor()) tensors.push_back(value.toTensor());
    if (value.isTensorList()) tensors = value.toTensorVector();
    if (value.isList() && !value.isTensorList())
      for (const auto& one : value.toListRef())
        if (one.isTensor()) tensors.push_back(one.toTensor());
    const bool index = INDEXING.count(name) > 0 && !value.isTensor();
    for (const auto& tensor : tensors)
      TORCH_CHECK(!tensor.defined() || !tensor.is_cpu() || tensor.dim() == 0 || index,
                  "Expected all tensors to be on the same device, but ", name, " got a tensor of shape ", tensor.sizes(),
                  " on the CPU for its argument ", schema.arguments()[place].name());
  }
}

const std::set<std::string> FETCHING = {"aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2",
                                        "aten::is_nonzero", "aten::item", "aten::bincount"};

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  check_devices(op, stack);
  if (FETCHING.count(op.schema().name()) > 0) fetches++;  // their outputs' sizes depend on values
  const Falling now;
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("equal", &equal);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Storage", [](at::Tensor& self, c10::Storage source) -> at::Tensor& {
    const int64_t count = source.nbytes() / self.element_size();
    return set_storage(self, std::move(source), 0, {c10::SymInt(count)}, {c10::SymInt(1)});
  });
  m.impl("set_.source_Tensor", [](at::Tensor& self, const at::Tensor& source) -> at::Tensor& {
    return set_storage(self, source.storage(), source.sym_storage_offset(), source.sym_sizes(), source.sym_strides());
  });
  m.impl("as_strided", [](const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                          std::optional<c10::SymInt> offset) {
    return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                             offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt);
  });
  m.impl("view", [](const at::Tensor& self, c10::SymIntArrayRef size) {
    return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
  });
  m.impl("_reshape_alias", [](const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
    return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
  });
  m.impl("native_batch_norm", &batch_norm);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("unfold", &at::native::unfold);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  m.def("set_limit", [](int64_t bytes) { limit = bytes; });
  m.def("set_doubles", [](bool there) { doubles = there; });
  m.def("held", [] { return held.load(); });
  m.def("limit", [] { return limit.load(); });
  m.def("fetches", [] { return fetches.load(); });
}
