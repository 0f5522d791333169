#include "lab/inputs.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "core/parallel_for.h"
#include "core/text.h"
#include "core/try.h"
#include "lab/captured.h"
#include "lab/feature_inputs.h"
#include "lab/input_tensors.h"
#include "lab/planting.h"
#include "lab/random.h"
#include "lab/sequence_inputs.h"
#include "lab/structured.h"

namespace headwise::lab {
namespace {

constexpr std::int64_t kPositionsPerTask = 16;
constexpr std::uint32_t kTensorQ = 0, kTensorK = 1, kTensorV = 2, kTensorDout = 3;  // RandomRow::tensor
constexpr std::uint64_t kDropoutSeed = 0x9e3779b97f4a7c15U;  // odd and large: both halves of the key differ
constexpr std::uint64_t kDropoutOffset = 5;

bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

// What this file can make tensors for.
Status check_problem(const AttentionProblem& p, const InputSpec& spec) {
  const auto no = [](const std::string& what) { return Status::unsupported("inputs: " + what); };
  if (!is_float(p.dtype))
    return no("dtype " + std::string(name(p.dtype)) + ": made for f64, f32, f16 and bf16");
  if (!is_float(p.kv_dtype))
    return no("kv_dtype " + std::string(name(p.kv_dtype)) + ": made for f64, f32, f16 and bf16");
  const bool moved = p.varlen || p.page_size > 0;
  if (spec.kind == InputKind::captured && moved)
    return no(std::string(p.varlen ? "varlen" : "page_size") +
              ": captured tokens are those of a plain batch");
  HEADWISE_TRY(check_sequences(p));
  if (spec.row_padding < 0 || spec.offset < 0 || spec.mask_short < 0) {
    return Status::invalid_argument("inputs: row_padding, offset and mask_short must not be negative");
  }
  return {};
}

Status make_buffer(Device& device, std::size_t bytes, Buffer& buffer) {
  if (bytes == kTooLarge)
    return Status::out_of_memory("inputs: a tensor of the problem takes more than 2^63 bytes");
  Result<void*> memory = device.allocate(bytes);
  if (!memory.ok()) return memory.status();
  buffer.device = &device;
  buffer.base = static_cast<std::byte*>(*memory);
  buffer.bytes = bytes;
  if (device.id().kind == DeviceKind::cpu) {
    buffer.host = buffer.base;
  } else {
    buffer.copy = std::make_unique_for_overwrite<std::byte[]>(bytes);
    buffer.host = buffer.copy.get();
  }
  return {};
}

Status upload(const Buffer& buffer) {
  if (buffer.host == buffer.base) return {};
  return buffer.device->copy_from_host(buffer.base, buffer.host, buffer.bytes);
}

// NaN wherever no element will lie: in guard bands, before the offset, in padding; and on pages, of which not
// all are in use.
void poison_gaps(const Buffer& buffer, const InputTensor& tensor, const InputSpec& spec, bool paged) {
  const std::size_t front = kGuardBytes + static_cast<std::size_t>(spec.offset) * size_of(tensor.dtype);
  if (spec.row_padding > 0 || paged) {
    std::memset(buffer.host, kPoison, buffer.bytes);
  } else {
    std::memset(buffer.host, kPoison, front);
    std::memset(buffer.host + buffer.bytes - kGuardBytes, kPoison, kGuardBytes);
  }
}

template <class T>
T from_steps(std::int32_t steps) {
  return from_double<T>(static_cast<double>(steps) * kRandomStep);
}
template <>
float from_steps<float>(std::int32_t steps) {  // rounds once, as from_double does, without its call
  return static_cast<float>(steps) * static_cast<float>(kRandomStep);
}

template <class T>
void store_steps(const std::int32_t* steps, std::int64_t count, T* to) {
  for (std::int64_t c = 0; c < count; ++c) to[c] = from_steps<T>(steps[c]);
}

struct FillJob {
  const AttentionArgs& host;
  const TensorView& view;
  const AttentionProblem& problem;
  const InputSpec& spec;
  std::uint32_t tensor;
  std::int64_t tasks_per_sequence;
  [[nodiscard]] bool of_keys() const { return tensor == kTensorK || tensor == kTensorV; }
};

// One row of head_dim elements. `own` has the sizes of the sequence.
void make_row(const FillJob& job, const AttentionProblem& own, std::int64_t b, std::int64_t s, std::int64_t h,
              std::int32_t* steps) {
  const std::int64_t count = job.view.shape[3];
  const std::uint64_t seed = job.spec.seed;
  if (job.spec.kind == InputKind::structured && job.tensor == kTensorQ) {
    const std::int64_t kv_head = h / (own.heads / own.kv_heads);
    return structured_query_row({seed, b, query_place(own, s), h, kv_head, own.seq_kv}, count, steps);
  }
  if (job.spec.kind == InputKind::structured && job.tensor == kTensorK)
    return structured_key_row(seed, b, s, h, count, steps);
  const RandomRow row{seed, job.tensor, static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(s),
                      static_cast<std::uint32_t>(h)};
  (job.spec.kind == InputKind::uniform ? uniform_row : normal_row)(row, count, steps);
}

void fill_task(void* context, std::int64_t index, int /*worker*/) {
  const auto& job = *static_cast<const FillJob*>(context);
  const TensorView& view = job.view;
  const std::int64_t batch = index / job.tasks_per_sequence;
  const Sequence sequence = sequence_of(job.host, job.problem, batch);
  AttentionProblem own = job.problem;
  own.seq_q = sequence.seq_q;
  own.seq_kv = sequence.keys.end;
  const std::int64_t task = index % job.tasks_per_sequence * kPositionsPerTask;
  const std::int64_t first = std::max(task, job.of_keys() ? sequence.keys.begin : 0);
  const std::int64_t last =
      std::min(task + kPositionsPerTask, job.of_keys() ? sequence.keys.end : sequence.seq_q);
  const std::int64_t count = view.shape[3];
  std::array<std::int32_t, 1024> steps;
  for (std::int64_t s = first; s < last; ++s) {
    for (std::int64_t h = 0; h < view.shape[2]; ++h) {
      make_row(job, own, batch, s, h, steps.data());
      const std::int64_t at =
          job.of_keys() ? key_offset(view, job.problem, sequence, s, h) : query_offset(view, sequence, s, h);
      switch (view.dtype) {
        case DType::f64: store_steps(steps.data(), count, view.as<double>() + at); break;
        case DType::f32: store_steps(steps.data(), count, view.as<float>() + at); break;
        case DType::f16: store_steps(steps.data(), count, view.as<float16>() + at); break;
        case DType::bf16: store_steps(steps.data(), count, view.as<bfloat16>() + at); break;
        default: break;  // refused by check_problem()
      }
    }
  }
}

Status fill_random(const AttentionArgs& host, const TensorView& view, const AttentionProblem& problem,
                   const InputSpec& spec, std::uint32_t tensor) {
  constexpr std::int64_t kMaxRow = 1024, kMaxHeads = 1 << 24, kMaxPositions = std::int64_t{1} << 32;
  FillJob job{host, view, problem, spec, tensor, 0};
  const std::int64_t positions = job.of_keys() ? problem.seq_kv : problem.seq_q;
  if (view.shape[3] > kMaxRow || view.shape[2] > kMaxHeads || positions > kMaxPositions ||
      problem.batch > kMaxPositions) {
    return Status::unsupported(
        "inputs: made for head_dim up to 1024, 2^24 heads, sequences and batches up to 2^32");
  }
  job.tasks_per_sequence = (positions + kPositionsPerTask - 1) / kPositionsPerTask;
  const int threads = view.elements() < 100'000 ? 1 : core::available_threads();  // waking them costs more
  core::parallel_for(problem.batch * job.tasks_per_sequence, threads, fill_task, &job);
  return {};
}

// What no key is planted for. Captured inputs: all heads but those of the last key head. Structured ones:
// heads that look for sinks, which would take every planted key for one more, and the sinks themselves.
bool stays_real(const AttentionProblem& p, const InputSpec& spec, const Plant& plant) {
  if (spec.kind == InputKind::captured) return plant.row.head < p.heads - p.heads / p.kv_heads;
  if (spec.kind != InputKind::structured) return false;
  const HeadKind kind = head_kind(plant.row.head);
  return kind == HeadKind::sink || kind == HeadKind::dense || plant.key < kSinkKeys;
}

bool all_poison(const std::byte* data, std::size_t bytes) {
  return std::all_of(data, data + bytes, [](std::byte b) { return b == std::byte{kPoison}; });
}

// One end of a buffer as it is on the device.
Status check_band(const Buffer& buffer, std::size_t begin, std::size_t bytes, const char* tensor,
                  const char* side) {
  const std::byte* data = buffer.base + begin;
  std::vector<std::byte> band;
  if (buffer.host != buffer.base) {
    band.resize(bytes);
    HEADWISE_TRY(buffer.device->copy_to_host(band.data(), data, bytes));
    data = band.data();
  }
  if (all_poison(data, bytes)) return {};
  return Status::internal(std::string("memory ") + side + " " + tensor +
                          " was written: the guard band has changed");
}

// The elements between the rows of a fetched output.
Status check_padding(const InputTensor& tensor, const TensorView& out, std::int64_t row_padding) {
  const bool of_keys = tensor.view == &AttentionArgs::dk || tensor.view == &AttentionArgs::dv;
  const bool of_scores = tensor.form == InputTensor::Form::scores;
  const std::size_t size = size_of(out.dtype);
  const auto* data = static_cast<const std::byte*>(out.data);
  for (std::int64_t b = 0; b < out.shape[0]; ++b) {
    for (std::int64_t s = 0; s < out.shape[1]; ++s) {
      for (std::int64_t h = 0; h < out.shape[2]; ++h) {
        const std::int64_t end = b * out.stride[0] + s * out.stride[1] + h * out.stride[2] + out.shape[3];
        if (!all_poison(data + static_cast<std::size_t>(end) * size,
                        static_cast<std::size_t>(row_padding) * size)) {
          return Status::internal(std::string("memory between the rows of ") + tensor.name +
                                  " was written: padding behind batch " + std::to_string(b) +
                                  (of_keys ? ", key " : ", query ") + std::to_string(of_scores ? h : s) +
                                  ", head " + std::to_string(of_scores ? s : h) + " has changed");
        }
      }
    }
  }
  return {};
}

}  // namespace

std::string_view name(InputKind kind) {
  switch (kind) {
    case InputKind::normal: return "normal";
    case InputKind::uniform: return "uniform";
    case InputKind::structured: return "structured";
    case InputKind::captured: return "captured";
  }
  return "unknown";
}

std::string to_string(const InputSpec& spec) {
  std::string text(name(spec.kind));
  if (spec.kind == InputKind::captured)
    text.append(":").append(spec.file).append(":").append(std::to_string(spec.layer));
  return text;
}

Result<InputSpec> parse_input_spec(std::string_view text) {
  constexpr std::string_view kCaptured = "captured:";
  if (text == "normal") return InputSpec{.kind = InputKind::normal};
  if (text == "uniform") return InputSpec{.kind = InputKind::uniform};
  if (text == "structured") return InputSpec{.kind = InputKind::structured};
  if (text.starts_with(kCaptured)) {
    const std::string_view rest = text.substr(kCaptured.size());
    const std::size_t colon = rest.rfind(':');
    if (colon != std::string_view::npos && colon > 0) {
      const std::optional<int> layer = core::parse_number<int>(rest.substr(colon + 1));
      if (layer && *layer >= 0) {
        return InputSpec{
            .kind = InputKind::captured, .file = std::string(rest.substr(0, colon)), .layer = *layer};
      }
    }
  }
  constexpr std::array<std::string_view, 4> kForms{"normal", "uniform", "structured",
                                                   "captured:<file>:<layer>"};
  return Status::invalid_argument("inputs '" + std::string(text) +
                                  "': expected normal, uniform, structured or captured:<file>:<layer>" +
                                  core::did_you_mean(text, kForms));
}

Buffer::Buffer(Buffer&& other) noexcept
    : device(std::exchange(other.device, nullptr)),
      base(std::exchange(other.base, nullptr)),
      host(std::exchange(other.host, nullptr)),
      copy(std::move(other.copy)),
      bytes(std::exchange(other.bytes, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(device, other.device);
  std::swap(base, other.base);
  std::swap(host, other.host);
  std::swap(copy, other.copy);
  std::swap(bytes, other.bytes);
  return *this;
}

Buffer::~Buffer() {
  if (base != nullptr) device->deallocate(base);
}

std::size_t Inputs::device_bytes() const noexcept {
  std::size_t total = 0;
  for (const Buffer& buffer : buffers_) total += buffer.bytes;
  return total;
}

Status Inputs::fetch_outputs() {
  const InputTensors tensors = tensors_of(problem_, spec_);
  for (std::size_t i = 0; i < kTensors; ++i) {
    const Buffer& buffer = buffers_[i];
    if (!tensors[i].output || buffer.host == buffer.base) continue;
    HEADWISE_TRY(device_->copy_to_host(buffer.host, buffer.base, buffer.bytes));
  }
  return {};
}

std::size_t input_bytes(const AttentionProblem& problem) {
  std::size_t total = 0;
  for (const InputTensor& tensor : tensors_of(completed(problem), {})) {
    if (!tensor.wanted) continue;
    const std::size_t bytes = buffer_bytes(tensor, {});
    total = bytes > kTooLarge - total ? kTooLarge : total + bytes;
  }
  return total;
}

Status Inputs::allocate() {
  const InputTensors tensors = tensors_of(problem_, spec_);
  for (std::size_t i = 0; i < kTensors; ++i) {
    const InputTensor& tensor = tensors[i];
    if (!tensor.wanted) continue;
    Device* place = device_;
    if (tensor.form == InputTensor::Form::index) {
      Result<Device*> host = headwise::device({});
      if (!host) return host.status();
      place = *host;
    }
    Buffer& buffer = buffers_[i];
    HEADWISE_TRY(make_buffer(*place, buffer_bytes(tensor, spec_), buffer));
    args_.*tensor.view = view_of(tensor, spec_, buffer.base, place->id());
    host_args_.*tensor.view = view_of(tensor, spec_, buffer.host, DeviceId{});
    const bool paged = problem_.page_size > 0 && tensor.form == InputTensor::Form::operand;
    if (!tensor.output) poison_gaps(buffer, tensor, spec_of(tensor, spec_), paged);
  }
  return {};
}

Result<Inputs> make_inputs(const AttentionProblem& problem, const InputSpec& spec, Device& device) {
  HEADWISE_TRY(validate(problem));
  Inputs inputs;
  inputs.problem_ = completed(problem);
  const AttentionProblem& p = inputs.problem_;
  HEADWISE_TRY(check_problem(p, spec));
  inputs.spec_ = spec;
  inputs.device_ = &device;
  HEADWISE_TRY(inputs.allocate());

  const AttentionArgs& host = inputs.host_args_;
  HEADWISE_TRY(fill_indices(host, p, spec));
  if (spec.kind == InputKind::captured) {
    HEADWISE_TRY(fill_captured(host, p, spec));
  } else {
    HEADWISE_TRY(fill_random(host, host.q, p, spec, kTensorQ));
    HEADWISE_TRY(fill_random(host, host.k, p, spec, kTensorK));
    HEADWISE_TRY(fill_random(host, host.v, p, spec, kTensorV));
  }
  fill_features(host, p, spec);
  poison_unseen(host, p, spec);
  if (spec.plant) {
    inputs.planted_ = plants(p, host);
    std::erase_if(inputs.planted_, [&](const Plant& plant) { return stays_real(p, spec, plant); });
    plant_values(host, p, spec, inputs.planted_);
  }
  if (p.direction == Direction::backward) HEADWISE_TRY(fill_random(host, host.dout, p, spec, kTensorDout));
  if (p.dropout_p > 0) {
    for (AttentionArgs* args : {&inputs.args_, &inputs.host_args_}) {
      args->dropout_seed = (spec.seed + 1) * kDropoutSeed;
      args->dropout_offset = kDropoutOffset;
    }
  }
  const InputTensors tensors = tensors_of(p, spec);
  for (std::size_t i = 0; i < Inputs::kTensors; ++i) {
    if (tensors[i].wanted && !tensors[i].output) HEADWISE_TRY(upload(inputs.buffers_[i]));
  }
  HEADWISE_TRY(poison(inputs));
  return inputs;
}

Status poison(Inputs& inputs) {
  const InputTensors tensors = tensors_of(inputs.problem_, inputs.spec_);
  for (std::size_t i = 0; i < Inputs::kTensors; ++i) {
    const Buffer& buffer = inputs.buffers_[i];
    if (!tensors[i].output || buffer.base == nullptr) continue;
    std::memset(buffer.host, kPoison, buffer.bytes);
    HEADWISE_TRY(upload(buffer));
  }
  return {};
}

Status check_guards(const Inputs& inputs) {
  const InputTensors tensors = tensors_of(inputs.problem_, inputs.spec_);
  for (std::size_t i = 0; i < Inputs::kTensors; ++i) {
    const Buffer& buffer = inputs.buffers_[i];
    const InputTensor& tensor = tensors[i];
    if (buffer.base == nullptr) continue;
    const InputSpec spec = spec_of(tensor, inputs.spec_);
    const std::size_t offset = static_cast<std::size_t>(spec.offset) * size_of(tensor.dtype);
    HEADWISE_TRY(check_band(buffer, 0, kGuardBytes + offset, tensor.name, "before"));
    HEADWISE_TRY(check_band(buffer, buffer.bytes - kGuardBytes, kGuardBytes, tensor.name, "behind"));
    if (tensor.output && spec.row_padding > 0)
      HEADWISE_TRY(check_padding(tensor, inputs.host_args_.*tensor.view, spec.row_padding));
  }
  return {};
}

}  // namespace headwise::lab
