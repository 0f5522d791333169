#include "lab/forward_results.h"

#include "core/try.h"

namespace headwise::lab {

Scratch::~Scratch() {
  if (workspace_.data != nullptr) device_.deallocate(workspace_.data);
}

Status Scratch::allocate(std::size_t bytes) {
  if (bytes == 0) return {};
  Result<void*> data = device_.allocate(bytes);
  if (!data) return data.status();
  workspace_ = {*data, bytes};
  return {};
}

namespace {

// From the first element to behind the last.
std::size_t span_elements(const TensorView& t) {
  if (t.elements() == 0) return 0;
  std::int64_t last = 0;
  for (std::size_t axis = 0; axis < 4; ++axis) last += (t.shape[axis] - 1) * t.stride[axis];
  return static_cast<std::size_t>(last) + 1;
}

}  // namespace

Status ForwardResults::make(const Inputs& inputs) {
  const TensorView& dout = inputs.args().dout;
  const std::int64_t rows = dout.shape[0] * dout.shape[1] * dout.shape[2];
  HEADWISE_TRY(out_.allocate(span_elements(dout) * size_of(dout.dtype)));
  HEADWISE_TRY(lse_.allocate(static_cast<std::size_t>(rows) * sizeof(float)));
  AttentionProblem problem = inputs.problem();
  problem.direction = Direction::forward;
  problem.lse = true;
  problem.dbias = problem.dsinks = false;
  const Result<Plan> forward = plan(problem, device_.id());
  if (!forward) return forward.status();
  AttentionArgs args = beside(inputs);
  for (TensorView* gradient : {&args.dout, &args.dq, &args.dk, &args.dv, &args.dbias, &args.dsinks})
    *gradient = {};
  Scratch workspace(device_);
  HEADWISE_TRY(workspace.allocate(forward->workspace_bytes()));
  HEADWISE_TRY(forward->run(args, {.workspace = workspace.workspace()}));
  return device_.synchronize(nullptr);
}

AttentionArgs ForwardResults::beside(const Inputs& inputs) const {
  AttentionArgs args = inputs.args();
  if (inputs.problem().direction == Direction::forward) return args;
  args.out = args.dout;  // with its strides: the plan relies on the alignment of all tensors
  args.out.data = out_.workspace().data;
  const auto& shape = args.dout.shape;
  args.lse = contiguous(lse_.workspace().data, DType::f32, {shape[0], shape[2], shape[1]}, device_.id());
  return args;
}

}  // namespace headwise::lab
