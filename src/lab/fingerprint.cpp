#include "lab/fingerprint.h"

#include <bit>
#include <cstring>

#include "core/try.h"

namespace headwise::lab {
namespace {

// Odd, with its ones spread evenly: the multiplier of Fibonacci hashing, 2^64 / golden ratio.
constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c15U;

std::uint64_t mix(std::uint64_t state, std::uint64_t word) {
  const std::uint64_t product = (state ^ word) * kMultiplier;
  return product ^ (product >> 29);
}

// Rows of the innermost dimension, wherever they lie. Ranks 1 to 4.
std::uint64_t add_view(std::uint64_t state, const TensorView& view) {
  const std::size_t size = size_of(view.dtype);
  const auto* data = static_cast<const std::byte*>(view.data);
  const auto last = static_cast<std::size_t>(view.rank - 1);
  const auto extent = [&](std::size_t axis) { return axis < last ? view.shape[axis] : 1; };
  for (std::int64_t a = 0; a < extent(0); ++a) {
    for (std::int64_t b = 0; b < extent(1); ++b) {
      for (std::int64_t c = 0; c < extent(2); ++c) {
        const std::int64_t at = (last > 0 ? a * view.stride[0] : 0) + (last > 1 ? b * view.stride[1] : 0) +
                                (last > 2 ? c * view.stride[2] : 0);
        state = fingerprint(state, data + static_cast<std::size_t>(at) * size,
                            static_cast<std::size_t>(view.shape[last]) * size);
      }
    }
  }
  return state;
}

}  // namespace

std::uint64_t fingerprint(std::uint64_t before, const void* data, std::size_t bytes) {
  const auto* next = static_cast<const std::byte*>(data);
  // Four at a time: one chain of multiplications would take 4 cycles a word.
  std::uint64_t lanes[4] = {before, before + 1, before + 2, before + 3};
  std::size_t left = bytes;
  for (; left >= sizeof lanes; left -= sizeof lanes, next += sizeof lanes) {
    std::uint64_t words[4];
    std::memcpy(words, next, sizeof words);
    for (int i = 0; i < 4; ++i) lanes[i] = mix(lanes[i], words[i]);
  }
  std::uint64_t state = mix(before, bytes);
  for (const std::uint64_t lane : lanes) state = mix(std::rotl(state, 23), lane);
  for (; left > 0; --left, ++next) state = mix(state, std::to_integer<std::uint64_t>(*next));
  return state;
}

Result<std::uint64_t> output_fingerprint(Inputs& inputs) {
  HEADWISE_TRY(inputs.fetch_outputs());
  const AttentionArgs& args = inputs.host_args();
  std::uint64_t state = 0;
  for (const TensorView* output :
       {&args.out, &args.lse, &args.dq, &args.dk, &args.dv, &args.dbias, &args.dsinks}) {
    if (output->present()) state = add_view(state, *output);
  }
  return state;
}

}  // namespace headwise::lab
