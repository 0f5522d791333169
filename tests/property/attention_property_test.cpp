// Random problems: text round trip, mask ranges and cost against counting key by key, and the
// memory-sharing decision against comparing every address.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "attention/fields.h"
#include "attention/mask.h"
#include "attention/tensor_checks.h"
#include "headwise/attention.h"

namespace headwise {
namespace {

// Over the whole range from the first case on: RapidCheck's own ranges grow from nearly nothing.
std::int64_t draw(std::int64_t low, std::int64_t high) {
  return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange<std::int64_t>(low, high + 1));
}

// Drawings of one case: a hundred cases alone are few where most views lie apart.
constexpr int kRepeats = 50;

// A value of the field within its range; bits of floats, so that every float comes up.
struct RandomValue {
  const Field& field;
  AttentionProblem& problem;

  void operator()(MemberOf<bool> member) const { problem.*member = *rc::gen::arbitrary<bool>(); }
  void operator()(MemberOf<DType> member) const { problem.*member = static_cast<DType>(draw(0, 7)); }
  void operator()(MemberOf<Direction> member) const { problem.*member = static_cast<Direction>(draw(0, 1)); }
  void operator()(MemberOf<Align> member) const { problem.*member = static_cast<Align>(draw(0, 2)); }
  void operator()(MemberOf<AlibiKind> member) const { problem.*member = static_cast<AlibiKind>(draw(0, 2)); }
  void operator()(MemberOf<MaskKind> member) const { problem.*member = static_cast<MaskKind>(draw(0, 2)); }
  template <class T>
    requires std::is_integral_v<T>
  void operator()(MemberOf<T> member) const {
    problem.*member = static_cast<T>(
        draw(static_cast<std::int64_t>(field.minimum), static_cast<std::int64_t>(field.maximum)));
  }
  void operator()(MemberOf<float> member) const { problem.*member = in_range(); }
  void operator()(MemberOf<std::optional<float>> member) const {
    if (*rc::gen::arbitrary<bool>()) problem.*member = in_range();
  }
  [[nodiscard]] float in_range() const {
    for (;;) {
      const auto value = std::bit_cast<float>(*rc::gen::arbitrary<std::uint32_t>());
      if (value >= field.minimum && value <= field.maximum) return value;
      if (-value >= field.minimum && -value <= field.maximum) return -value;
      if (field.maximum < 1) return static_cast<float>(draw(0, 1 << 20)) / static_cast<float>((1 << 20) + 1);
    }
  }
};

RC_GTEST_PROP(Problem, ParsesBackWhatItPrints, ()) {
  AttentionProblem problem;
  for (const Field& field : problem_fields()) {
    if (*rc::gen::arbitrary<bool>()) std::visit(RandomValue{field, problem}, field.member);
  }
  const Result<AttentionProblem> back = parse_problem(to_string(problem));
  RC_ASSERT(back.ok());
  RC_ASSERT(*back == problem);
  RC_ASSERT(hash(*back) == hash(problem));
}

RC_GTEST_PROP(Problem, ParserTakesAnyTextWithoutHarm, (const std::vector<std::string>& words)) {
  std::string text;
  for (const std::string& word : words) {
    const auto& field = problem_fields()[static_cast<std::size_t>(draw(0, 33))];
    text += (*rc::gen::arbitrary<bool>() ? std::string(field.name) + "=" : "") + word + " ";
  }
  const Result<AttentionProblem> parsed = parse_problem(text);
  if (parsed.ok()) {
    RC_ASSERT(*parse_problem(to_string(*parsed)) == *parsed);
  } else {
    RC_ASSERT(parsed.status().code() == StatusCode::invalid_argument);
  }
}

AttentionProblem random_mask() {
  AttentionProblem p;
  p.batch = draw(0, 3);
  p.heads = draw(1, 4);
  p.seq_q = draw(0, 20);
  p.seq_kv = draw(0, 20);
  p.causal = *rc::gen::arbitrary<bool>();
  p.align = static_cast<Align>(draw(0, 2));
  p.window_left = draw(-1, 12);
  p.window_right = draw(-1, 12);
  return p;
}

// The rule of the mask, word for word.
bool may_see(const AttentionProblem& p, std::int64_t i, std::int64_t j) {
  const std::int64_t at = i + (p.align == Align::bottom_right ? p.seq_kv - p.seq_q : 0);
  if (p.causal && j > at) return false;
  if (p.window_left >= 0 && j < at - p.window_left) return false;
  return p.window_right < 0 || j <= at + p.window_right;
}

RC_GTEST_PROP(Mask, KeyRangeIsExactlyTheVisibleKeys, ()) {
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const AttentionProblem p = random_mask();
    for (std::int64_t i = 0; i < p.seq_q; ++i) {
      const KeyRange range = key_range(p, i);
      RC_ASSERT(range.begin >= 0 && range.end <= p.seq_kv);
      for (std::int64_t j = 0; j < p.seq_kv; ++j) {
        RC_ASSERT(may_see(p, i, j) == (j >= range.begin && j < range.end));
      }
    }
  }
}

RC_GTEST_PROP(Mask, BlocksAreSkippedOrFullExactlyWhenAllTheirPairsAre, ()) {
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const AttentionProblem p = random_mask();
    if (p.seq_q == 0 || p.seq_kv == 0) continue;
    const std::int64_t first = draw(0, p.seq_q - 1);
    const std::int64_t last = draw(first, p.seq_q - 1);
    const std::int64_t begin = draw(0, p.seq_kv - 1);
    const std::int64_t end = draw(begin + 1, p.seq_kv);
    std::int64_t visible = 0;
    for (std::int64_t i = first; i <= last; ++i) {
      for (std::int64_t j = begin; j < end; ++j) visible += may_see(p, i, j) ? 1 : 0;
    }
    const std::int64_t pairs = (last - first + 1) * (end - begin);
    const BlockKind kind = block_kind(block_range(band_of(p), first, last), begin, end);
    RC_ASSERT((kind == BlockKind::skipped) == (visible == 0));
    RC_ASSERT((kind == BlockKind::full) == (visible == pairs));
  }
}

RC_GTEST_PROP(Cost, PairsAreCountedExactly, ()) {
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    AttentionProblem p = random_mask();
    p.head_dim = draw(1, 576);
    p.head_dim_v = draw(1, 576);
    std::int64_t pairs = 0;
    for (std::int64_t i = 0; i < p.seq_q; ++i) {
      for (std::int64_t j = 0; j < p.seq_kv; ++j) pairs += may_see(p, i, j) ? 1 : 0;
    }
    const auto all = static_cast<double>(pairs * p.batch * p.heads);
    const double flops = 2.0 * static_cast<double>(p.head_dim + p.head_dim_v) * all;
    RC_ASSERT(cost(p).pairs == all);
    RC_ASSERT(cost(p).flops == flops);
    p.direction = Direction::backward;
    RC_ASSERT(cost(p).flops == 2.5 * flops);
  }
}

// A view into a buffer with random extents, strides (negative ones too) and offset.
TensorView random_view(char* middle) {
  TensorView view{.dtype = *rc::gen::element(DType::f32, DType::f16, DType::int8)};
  view.rank = static_cast<int>(draw(1, 4));
  for (int axis = 0; axis < view.rank; ++axis) {
    view.shape[static_cast<std::size_t>(axis)] = draw(0, 4);
    view.stride[static_cast<std::size_t>(axis)] = draw(-40, 40);
  }
  view.stride[static_cast<std::size_t>(view.rank - 1)] = 1;
  view.data = middle + draw(-200, 200);
  return view;
}

std::unordered_set<const char*> bytes_of(const TensorView& view, bool& twice) {
  std::unordered_set<const char*> bytes;
  twice = false;
  std::array<std::int64_t, 4> shape = {1, 1, 1, 1};
  for (int axis = 0; axis < view.rank; ++axis)
    shape[static_cast<std::size_t>(axis)] = view.shape[static_cast<std::size_t>(axis)];
  for (std::int64_t a = 0; a < shape[0]; ++a) {
    for (std::int64_t b = 0; b < shape[1]; ++b) {
      for (std::int64_t c = 0; c < shape[2]; ++c) {
        for (std::int64_t d = 0; d < shape[3]; ++d) {
          const std::int64_t offset =
              a * view.stride[0] + b * view.stride[1] + c * view.stride[2] + d * view.stride[3];
          const auto size = static_cast<std::int64_t>(size_of(view.dtype));
          for (std::int64_t byte = 0; byte < size; ++byte) {
            twice = !bytes.insert(static_cast<const char*>(view.data) + offset * size + byte).second || twice;
          }
        }
      }
    }
  }
  return bytes;
}

RC_GTEST_PROP(Memory, SharingIsDecidedAsByComparingAddresses, ()) {
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<char> buffer(8192);
    const TensorView a = random_view(buffer.data() + 4096);
    const TensorView b = random_view(buffer.data() + 4096);
    bool twice = false;
    const std::unordered_set<const char*> of_a = bytes_of(a, twice);
    bool shared = false;
    for (const char* byte : bytes_of(b, twice)) shared = shared || of_a.count(byte) != 0;
    RC_ASSERT(share_memory(a, b) == shared);
    RC_ASSERT(share_memory(b, a) == shared);
  }
}

RC_GTEST_PROP(Memory, WritableMeansThatNoByteIsWrittenTwice, ()) {
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    std::vector<char> buffer(8192);
    const TensorView view = random_view(buffer.data() + 4096);
    bool twice = false;
    bytes_of(view, twice);
    if (check_writable({"out", view}).ok()) RC_ASSERT(!twice);
  }
}

RC_GTEST_PROP(Memory, PackedViewsOfAnyAxisOrderAreWritable, ()) {
  std::vector<std::size_t> order = {0, 1, 2};
  std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(draw(0, 1000))));
  TensorView view{.data = &order, .rank = 4, .shape = {draw(0, 3), draw(1, 3), draw(1, 3), draw(1, 3)}};
  view.stride[3] = 1;
  std::int64_t step = view.shape[3];
  for (const std::size_t axis : order) {
    view.stride[axis] = step + draw(0, 2);
    step = view.stride[axis] * view.shape[axis];
  }
  RC_ASSERT(check_writable({"out", view}).ok());
}

}  // namespace
}  // namespace headwise
