#include "numerics/cases.h"

#include <array>
#include <cstdint>
#include <string_view>

namespace headwise::numerics {
namespace {

// Lengths stand on both sides of what kernels tile by: 8 keys, 16 lanes, 48 rows, 64 and 128 keys a
// block, 512 a chunk.
constexpr std::string_view kEdges[] = {
    "seq_q=1 seq_kv=1 head_dim=1",
    "seq_q=1 seq_kv=7 head_dim=3 head_dim_v=5 lse=1",
    "seq_q=1 seq_kv=513 heads=8 kv_heads=2 head_dim=64 lse=1",
    "seq_q=1 seq_kv=2049 heads=4 head_dim=128 threads=3 lse=1",
    "seq_q=2 seq_kv=1600 heads=8 kv_heads=1 head_dim=64 causal=1 align=bottom_right threads=4",
    "seq_q=16 seq_kv=16 heads=2 head_dim=16 causal=1",
    "seq_q=17 seq_kv=15 heads=2 head_dim=17 causal=1 align=top_left lse=1",
    "seq_q=17 seq_kv=15 heads=2 head_dim=17 causal=1 align=bottom_right lse=1",
    "seq_q=47 seq_kv=48 heads=3 kv_heads=1 head_dim=33 head_dim_v=31 causal=1 align=bottom_right",
    "seq_q=48 seq_kv=49 heads=2 head_dim=80 causal=1 align=top_left lse=1",
    "seq_q=49 seq_kv=47 heads=6 kv_heads=3 head_dim=72 head_dim_v=40 causal=1 align=top_left",
    "seq_q=100 seq_kv=300 heads=2 head_dim=64 causal=1 align=top_left lse=1",
    "seq_q=300 seq_kv=100 heads=2 head_dim=64 causal=1 align=bottom_right lse=1",
    "seq_q=512 seq_kv=512 heads=2 head_dim=64 causal=1 lse=1",
    "seq_q=511 seq_kv=511 heads=2 kv_heads=1 head_dim=64",
    "seq_q=33 seq_kv=1025 heads=2 head_dim=96 causal=1 align=bottom_right",
    "seq_q=70 seq_kv=70 heads=1 head_dim=576 head_dim_v=512 lse=1",
    "seq_q=40 seq_kv=90 heads=2 head_dim=32 softmax_scale=0 lse=1",
    "seq_q=40 seq_kv=90 heads=2 head_dim=32 softmax_scale=-0.25 lse=1",
    "seq_q=40 seq_kv=90 heads=2 head_dim=32 softmax_scale=1.5 lse=1",
    "seq_q=5 seq_kv=0 heads=2 head_dim=8 lse=1",
    "seq_q=0 seq_kv=5 heads=2 head_dim=8 lse=1",
    "seq_q=0 seq_kv=0 heads=2 head_dim=8",
    "batch=0 seq_q=4 seq_kv=4 heads=2 head_dim=8",
    "seq_q=200 seq_kv=200 heads=2 head_dim=32 window_left=30 window_right=10 lse=1",
    "seq_q=200 seq_kv=200 heads=2 head_dim=32 window_left=64 causal=1 lse=1",
    "seq_q=130 seq_kv=700 heads=4 kv_heads=2 head_dim=40 window_left=100 causal=1 align=bottom_right lse=1",
    "seq_q=700 seq_kv=130 heads=1 head_dim=24 window_left=5 window_right=5 align=top_left lse=1",
};

// splitmix64: the sample is the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  template <class T, std::size_t N>
  T pick(const std::array<T, N>& from) {
    return from[next() % N];
  }

 private:
  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31U);
  }
  std::uint64_t state_;
};

Case sample(Random& random, DType dtype) {
  Case c;
  AttentionProblem& p = c.problem;
  p.dtype = p.kv_dtype = dtype;
  p.batch = random.pick(std::array<std::int64_t, 3>{1, 1, 3});
  const auto heads = random.pick(
      std::array<std::array<std::int64_t, 2>, 6>{{{1, 1}, {2, 2}, {4, 2}, {6, 1}, {5, 5}, {12, 4}}});
  p.heads = heads[0];
  p.kv_heads = heads[1];
  constexpr std::array<std::int64_t, 14> kLengths{1, 2, 9, 31, 48, 63, 64, 65, 97, 129, 160, 257, 513, 530};
  p.seq_q = random.pick(kLengths);
  p.seq_kv = random.pick(std::array<bool, 2>{true, false}) ? p.seq_q : random.pick(kLengths);
  p.head_dim = random.pick(std::array<std::int64_t, 10>{1, 7, 16, 32, 40, 64, 65, 96, 128, 192});
  p.head_dim_v = random.pick(std::array<bool, 3>{true, true, false})
                     ? p.head_dim
                     : random.pick(std::array<std::int64_t, 5>{1, 6, 32, 63, 128});
  p.causal = random.pick(std::array<bool, 2>{true, false});
  p.align = random.pick(std::array<Align, 2>{Align::top_left, Align::bottom_right});
  p.lse = random.pick(std::array<bool, 2>{true, false});
  p.threads = random.pick(std::array<int, 3>{1, 2, 3});
  c.inputs.kind = random.pick(std::array<lab::InputKind, 2>{lab::InputKind::normal, lab::InputKind::uniform});
  c.inputs.seed = static_cast<std::uint64_t>(p.seq_q * 131 + p.seq_kv);
  c.inputs.layout = random.pick(std::array<lab::Layout, 2>{lab::Layout::bshd, lab::Layout::bhsd});
  c.inputs.row_padding = random.pick(std::array<std::int64_t, 3>{0, 0, 5});
  c.inputs.offset = random.pick(std::array<std::int64_t, 3>{0, 1, 3});
  return c;
}

}  // namespace

std::vector<Case> cases(DType dtype) {
  std::vector<Case> all;
  for (const std::string_view text : kEdges) {
    Case c;
    c.problem = check(parse_problem("dtype=" + std::string(name(dtype)) + " " + std::string(text)));
    all.push_back(c);
  }
  Random random(0x6865616477697365ULL);
  constexpr int kSamples = 60;
  for (int i = 0; i < kSamples; ++i) all.push_back(sample(random, dtype));
  return all;
}

std::string to_string(const Case& c) {
  return headwise::to_string(c.problem) + "   inputs " + lab::to_string(c.inputs) +
         " seed=" + std::to_string(c.inputs.seed) +
         (c.inputs.layout == lab::Layout::bhsd ? " bhsd" : " bshd") +
         " row_padding=" + std::to_string(c.inputs.row_padding) +
         " offset=" + std::to_string(c.inputs.offset);
}

}  // namespace headwise::numerics
