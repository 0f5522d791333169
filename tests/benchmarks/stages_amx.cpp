// Stages of cpu/amx/flash/bf16, one tile of 32 queries: docs/cpu-kernels.md keeps a table.
//
//   cmake --build build/release --target headwise_stages_amx && build/release/bin/headwise_stages_amx
#include "core/cpu_features.h"
#include "cpu/amx/flash/bf16.cpp"  // NOLINT(bugprone-suspicious-include): its parts have no other names
#include "stages.h"

HEADWISE_TARGET_BEGIN(HEADWISE_AVX512)
namespace headwise::cpu::amx {
namespace {

struct Data {
  std::int64_t head_dim;
  Staged staged;
  float* q;
  float* s;
  float* weights;
  float* o;
};

constexpr int kWide = 2;
constexpr std::int64_t kQueries = kLanes * kWide;
constexpr std::int64_t kBlock = 256;

const Data& data_of(const void* data) { return *static_cast<const Data*>(data); }

void weigh_one(const void* context) {
  const Data& data = data_of(context);
  const Float reference[kWide] = {broadcast(3.0F), broadcast(3.0F)};
  const Exponents<kWide> exponents(reference, broadcast(1.44F));
  Float sum[kWide] = {zero(), zero()};
  weigh<kWide, false>(data.s, kStrip, exponents, sum, data.weights);
  store(data.s + kStrip * kQueries, add(sum[0], sum[1]));
}
void score_chunk(const void* context) {
  const Data& data = data_of(context);
  for (std::int64_t j = 0; j < kFlashChunk; j += kStrip) {
    scores<kWide>(data.staged, j, kStrip, data.q, data.head_dim, data.s);
  }
}
void multiply_chunk(const void* context) {
  const Data& data = data_of(context);
  for (std::int64_t j = 0; j < kFlashChunk; j += kBlock) {
    values<kWide>(data.staged, j, kBlock, data.weights, data.head_dim, false, data.o);
  }
}
void all_of_chunk(const void* context) {
  const Data& data = data_of(context);
  for (std::int64_t block = 0; block < kFlashChunk; block += kBlock) {
    for (std::int64_t j = block; j < block + kBlock; j += kStrip) {
      scores<kWide>(data.staged, j, kStrip, data.q, data.head_dim, data.s);
      weigh_one(context);
    }
    values<kWide>(data.staged, block, kBlock, data.weights, data.head_dim, false, data.o);
  }
}

void print_stages(std::int64_t head_dim) {
  const std::int64_t stride = transposed_stride(kFlashChunk);
  const Data data{head_dim,
                  {stages::normal_numbers<bfloat16>(kFlashChunk * head_dim), head_dim, kFlashChunk,
                   stages::normal_numbers<bfloat16>(head_dim * stride), stride, nullptr, 0},
                  reinterpret_cast<float*>(stages::normal_numbers<bfloat16>(head_dim * kQueries)),
                  stages::normal_numbers<float>((kStrip + 1) * kQueries),
                  reinterpret_cast<float*>(stages::normal_numbers<bfloat16>(kBlock * kQueries)),
                  stages::normal_numbers<float>(head_dim * kQueries)};
  std::printf("\nhead_dim %ld\n\n| stage | ns for 16 x 16 scores | GFLOP/s |\n| --- | --- | --- |\n",
              static_cast<long>(head_dim));
  const ProductScope scope;
  stages::print_stage("QK", score_chunk, &data, kFlashChunk * kQueries, head_dim);
  stages::print_stage("weights", weigh_one, &data, kStrip * kQueries, 0);
  stages::print_stage("PV", multiply_chunk, &data, kFlashChunk * kQueries, head_dim);
  stages::print_stage("all three", all_of_chunk, &data, kFlashChunk * kQueries, 2 * head_dim);
}

}  // namespace
}  // namespace headwise::cpu::amx
HEADWISE_TARGET_END

int main() {
  if (!headwise::core::cpu_features().amx_bf16) {
    std::puts("This processor has no AMX-BF16.");
    return 0;
  }
  headwise::cpu::amx::print_stages(64);
  headwise::cpu::amx::print_stages(128);
}
