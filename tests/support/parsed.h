// Problems of tests, written as the words that to_string() prints.
#pragma once

#include <gtest/gtest.h>

#include <string_view>

#include "headwise/attention.h"

namespace headwise {

inline AttentionProblem parsed(std::string_view text) {
  const Result<AttentionProblem> problem = parse_problem(text);
  EXPECT_TRUE(problem.ok()) << problem.status().message();
  return problem.ok() ? *problem : AttentionProblem{};
}

}  // namespace headwise
