// docs/support-matrix.md is the registry's, word for word.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "headwise/kernels.h"
#include "lab/catalog.h"

namespace headwise::lab {
namespace {

TEST(SupportMatrix, ThePageIsWhatTheKernelsSay) {
  const std::string path = HEADWISE_SOURCE_DIR "/docs/support-matrix.md";
  std::ifstream stream(path, std::ios::binary);
  const std::string page(std::istreambuf_iterator<char>(stream), {});
  EXPECT_TRUE(page == support_matrix())
      << path << " differs from the kernels of this build; renew it with\n"
      << "  build/release/bin/headwise list matrix > docs/support-matrix.md";
}

TEST(SupportMatrix, HasEveryKernelInBothTables) {
  const std::string text = support_matrix();
  for (const KernelInfo& kernel : kernels()) {
    const std::string cell = "| `" + std::string(kernel.id) + "` ";
    const std::size_t first = text.find(cell);
    ASSERT_NE(first, std::string::npos) << kernel.id;
    const std::size_t second = text.find(cell, first + 1);
    ASSERT_NE(second, std::string::npos) << kernel.id;
    EXPECT_EQ(text.find(cell, second + 1), std::string::npos) << kernel.id;
    // The second is the features': the first of its columns is the window.
    const std::string column = text.substr(text.find("| ", second + cell.size()), 5);
    EXPECT_EQ(column, kernel.features.window ? "| yes" : "| -  ") << kernel.id;
  }
}

}  // namespace
}  // namespace headwise::lab
