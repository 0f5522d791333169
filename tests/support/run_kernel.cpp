#include "support/run_kernel.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <ostream>

namespace headwise {
void PrintTo(const KernelInfo& kernel, std::ostream* stream) { *stream << kernel.id; }
}  // namespace headwise

namespace headwise::numerics {

Device& cpu() { return *check(device({})); }

namespace {

std::vector<KernelInfo> kernels_of(Direction direction) {
  std::vector<KernelInfo> found;
  for (const KernelInfo& kernel : kernels()) {
    if (kernel.device == DeviceKind::cpu && kernel.traits.direction == direction) found.push_back(kernel);
  }
  return found;
}

}  // namespace

std::vector<KernelInfo> forward_kernels() { return kernels_of(Direction::forward); }
std::vector<KernelInfo> backward_kernels() { return kernels_of(Direction::backward); }

std::string cannot_run_here(const KernelInfo& kernel) {
  if (kernel.traits.isa == "scalar" || cpu().has(kernel.traits.isa)) return {};
  return std::string(kernel.id) + ": this processor has no " + std::string(kernel.traits.isa);
}

std::string test_name(std::string_view id) {
  std::string name(id);
  std::replace_if(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

std::string captured_file() { return HEADWISE_SOURCE_DIR "/data/captured/all-minilm-l6-v2.safetensors"; }

OwnedWorkspace::OwnedWorkspace(std::size_t bytes) : workspace_{check(cpu().allocate(bytes)), bytes} {
  std::memset(workspace_.data, 0xFF, bytes);
}
OwnedWorkspace::~OwnedWorkspace() { cpu().deallocate(workspace_.data); }

Status run(const Plan& plan, const AttentionArgs& args) {
  const OwnedWorkspace memory(std::max<std::size_t>(plan.workspace_bytes(), 1));
  return plan.run(args, {.workspace = {memory.get().data, plan.workspace_bytes()}});
}

namespace {

std::size_t row_bytes(const AttentionArgs& args) {
  return static_cast<std::size_t>(args.out.shape[3]) * size_of(args.out.dtype);
}

// Rows [0, queries) of batch items [first, last): out rows, then lse values.
std::vector<std::byte> gather(const AttentionArgs& args, std::int64_t first, std::int64_t last,
                              std::int64_t queries) {
  std::vector<std::byte> bits;
  for (const bool lse : {false, true}) {
    if (lse && !args.lse.present()) continue;
    for (std::int64_t b = first; b < last; ++b) {
      for (std::int64_t i = 0; i < queries; ++i) {
        for (std::int64_t h = 0; h < args.out.shape[2]; ++h) {
          const TensorView& t = lse ? args.lse : args.out;
          const std::int64_t at = lse ? b * t.stride[0] + h * t.stride[1] + i * t.stride[2]
                                      : b * t.stride[0] + i * t.stride[1] + h * t.stride[2];
          const auto* from = t.as<const std::byte>() + at * static_cast<std::int64_t>(size_of(t.dtype));
          bits.insert(bits.end(), from, from + (lse ? sizeof(float) : row_bytes(args)));
        }
      }
    }
  }
  return bits;
}

// The same selection out of bits that output_bits() gathered.
std::vector<std::byte> select(const std::vector<std::byte>& bits, const AttentionArgs& args,
                              std::int64_t first, std::int64_t last, std::int64_t queries) {
  std::vector<std::byte> part;
  std::size_t base = 0;
  for (const std::size_t unit : {row_bytes(args), args.lse.present() ? sizeof(float) : 0}) {
    const std::size_t query = unit * static_cast<std::size_t>(args.out.shape[2]);
    const std::size_t item = query * static_cast<std::size_t>(args.out.shape[1]);
    for (std::int64_t b = first; b < last; ++b) {
      const auto from = bits.begin() + static_cast<std::ptrdiff_t>(base + item * static_cast<std::size_t>(b));
      part.insert(part.end(), from,
                  from + static_cast<std::ptrdiff_t>(query * static_cast<std::size_t>(queries)));
    }
    base += item * static_cast<std::size_t>(args.out.shape[0]);
  }
  return part;
}

}  // namespace

std::vector<std::byte> output_bits(const AttentionArgs& args) {
  return gather(args, 0, args.out.shape[0], args.out.shape[1]);
}
std::vector<std::byte> output_bits_of_batch(const std::vector<std::byte>& bits, const AttentionArgs& args,
                                            std::int64_t batch) {
  return select(bits, args, batch, batch + 1, args.out.shape[1]);
}
std::vector<std::byte> output_bits_of_rows(const std::vector<std::byte>& bits, const AttentionArgs& args,
                                           std::int64_t rows) {
  return select(bits, args, 0, args.out.shape[0], rows);
}

AttentionArgs batch_item(const AttentionArgs& args, std::int64_t batch) {
  AttentionArgs one = args;
  for (TensorView* view : {&one.q, &one.k, &one.v, &one.out, &one.lse}) {
    if (!view->present()) continue;
    view->data =
        view->as<std::byte>() + batch * view->stride[0] * static_cast<std::int64_t>(size_of(view->dtype));
    view->shape[0] = 1;
  }
  return one;
}
AttentionArgs without_k(AttentionArgs args) {
  args.k = {};
  return args;
}
AttentionArgs without_v(AttentionArgs args) {
  args.v = {};
  return args;
}

void fill_keys(const AttentionArgs& args, std::int64_t begin, std::int64_t end, double value) {
  for (const TensorView& t : {args.k, args.v}) {
    if (!t.present()) continue;
    for (std::int64_t b = 0; b < t.shape[0]; ++b) {
      for (std::int64_t j = begin; j < end; ++j) {
        for (std::int64_t h = 0; h < t.shape[2]; ++h) {
          for (std::int64_t d = 0; d < t.shape[3]; ++d) {
            store_element(t.dtype, t.data, b * t.stride[0] + j * t.stride[1] + h * t.stride[2] + d, value);
          }
        }
      }
    }
  }
}

void ramp_scores(const AttentionArgs& args, double first, double last) {
  for (std::int64_t i = 0; i < args.q.shape[1]; ++i)
    store_element(args.q.dtype, args.q.data, i * args.q.stride[1], 1);
  for (std::int64_t j = 0; j < args.k.shape[1]; ++j) {
    const double score =
        first + (last - first) * static_cast<double>(j) / static_cast<double>(args.k.shape[1]);
    for (std::int64_t d = 0; d < args.k.shape[3]; ++d) {
      store_element(args.k.dtype, args.k.data, j * args.k.stride[1] + d, d == 0 ? score : 0);
    }
  }
}

}  // namespace headwise::numerics
