#include "lab/peers/shared_tensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace headwise::lab {
namespace {

constexpr std::size_t kAlignment = 4096;  // a page: nothing that libraries ask for is stricter

std::size_t rounded_up(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct Named {
  const char* name;
  TensorView view;
};

std::vector<Named> inputs_of(const AttentionArgs& args, Direction direction) {
  std::vector<Named> all{{"q", args.q}, {"k", args.k}, {"v", args.v}};
  if (direction == Direction::backward) all.push_back({"dout", args.dout});
  return all;
}

std::vector<Named> outputs_of(const AttentionArgs& args, Direction direction) {
  if (direction == Direction::backward) return {{"dq", args.dq}, {"dk", args.dk}, {"dv", args.dv}};
  return {{"out", args.out}};
}

std::size_t bytes_of(const TensorView& view) {
  return static_cast<std::size_t>(view.elements()) * size_of(view.dtype);
}

// Row by row: the innermost stride is 1, the others are the views' own.
void copy(const TensorView& from, const TensorView& to) {
  const auto width = static_cast<std::int64_t>(size_of(from.dtype));
  const std::size_t row = static_cast<std::size_t>(from.shape[3] * width);
  for (std::int64_t a = 0; a < from.shape[0]; ++a) {
    for (std::int64_t b = 0; b < from.shape[1]; ++b) {
      for (std::int64_t c = 0; c < from.shape[2]; ++c) {
        const std::int64_t source = a * from.stride[0] + b * from.stride[1] + c * from.stride[2];
        const std::int64_t target = a * to.stride[0] + b * to.stride[1] + c * to.stride[2];
        std::memcpy(static_cast<std::byte*>(to.data) + target * width,
                    static_cast<const std::byte*>(from.data) + source * width, row);
      }
    }
  }
}

}  // namespace

SharedTensors::~SharedTensors() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
  if (file_ >= 0) close(file_);
}

Status SharedTensors::make(const Inputs& inputs) {
  const Direction direction = inputs.problem().direction;
  const std::vector<Named> in = inputs_of(inputs.host_args(), direction);
  const std::vector<Named> out = outputs_of(inputs.host_args(), direction);
  const auto place = [&](const Named& tensor) {
    const std::size_t offset = bytes_;
    bytes_ += rounded_up(bytes_of(tensor.view));
    tensors_.push_back({tensor.name, tensor.view, offset});
  };
  for (const Named& tensor : in) place(tensor);
  outputs_begin_ = bytes_;
  for (const Named& tensor : out) place(tensor);
  bytes_ = std::max(bytes_, kAlignment);
  file_ = memfd_create("headwise-tensors", MFD_CLOEXEC);
  if (file_ < 0 || ftruncate(file_, static_cast<off_t>(bytes_)) != 0) {
    return Status::out_of_memory(
        fmt::format("{} bytes of shared memory for peers: {}", bytes_, std::strerror(errno)));
  }
  // Populated now: a page that cannot be had later would be a signal, not an error.
  int failed = EINTR;  // Ctrl-C must not read as a lack of memory
  while (failed == EINTR) failed = posix_fallocate(file_, 0, static_cast<off_t>(bytes_));
  if (failed != 0) {
    return Status::out_of_memory(
        fmt::format("{} bytes of shared memory for peers: {}", bytes_, std::strerror(failed)));
  }
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  if (mapped == MAP_FAILED) {
    return Status::out_of_memory(
        fmt::format("{} bytes of shared memory for peers: {}", bytes_, std::strerror(errno)));
  }
  memory_ = static_cast<std::byte*>(mapped);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    SharedTensor& tensor = tensors_[i];
    const TensorView host = tensor.view;
    tensor.view = contiguous(memory_ + tensor.offset, host.dtype,
                             {host.shape[0], host.shape[1], host.shape[2], host.shape[3]});
    if (i < in.size()) copy(host, tensor.view);
  }
  poison();
  return {};
}

void SharedTensors::poison() { std::memset(memory_ + outputs_begin_, 0xff, bytes_ - outputs_begin_); }

void SharedTensors::read_outputs(Inputs& inputs) {
  for (const Named& target : outputs_of(inputs.host_args(), inputs.problem().direction)) {
    for (const SharedTensor& tensor : tensors_) {
      if (tensor.name == target.name) copy(tensor.view, target.view);
    }
  }
}

std::string SharedTensors::path() const { return fmt::format("/proc/{}/fd/{}", getpid(), file_); }

}  // namespace headwise::lab
