// A program of somebody else's: attention of two queries over two keys, checked by hand.
#include <cmath>
#include <cstdio>

#include "headwise/headwise.h"

int main() {
  // head_dim 1; scores of query 1 are 0 and ln 3, so its weights are 1/4 and 3/4.
  const float q[] = {1, 1};
  const float k[] = {0, std::log(3.0F)};
  const float v[] = {4, 8};
  float out[2] = {};
  headwise::AttentionArgs args{.q = headwise::contiguous(q, {1, 2, 1, 1}),
                               .k = headwise::contiguous(k, {1, 2, 1, 1}),
                               .v = headwise::contiguous(v, {1, 2, 1, 1}),
                               .out = headwise::contiguous(out, {1, 2, 1, 1})};
  const headwise::Status status = headwise::attention(args, {.softmax_scale = 1.0F, .causal = true});
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 1;
  }
  std::printf("headwise %s: %.4f %.4f\n", std::string(headwise::version()).c_str(), out[0], out[1]);
  return std::fabs(out[0] - 4) < 1e-5 && std::fabs(out[1] - 7) < 1e-5 ? 0 : 1;
}
