"""The repository keeps its layers, and the checker would notice if it did not."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import layering

ROOT = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))

# A house without a breach; each test breaks one thing in it.
SOUND = {
    "include/headwise/status.h": "#pragma once\n#include <string>\n",
    "src/core/text.h": '#pragma once\n#include <unistd.h>\n#include "headwise/status.h"\n',
    "src/core/parallel_for.cpp": "#include <omp.h>\nvoid f() {\n#pragma omp parallel\n  omp_get_thread_num();\n}\n",
    "src/attention/kernel.h": '#include "core/text.h"\n',
    "src/oracle/oracle.h": '#include "core/text.h"\n',
    "src/cpu/kernels.cpp": "const Kernel* const list[] = {&kAvx512FlashF32, &kScalarNaiveF32};\n",
    "src/cpu/avx512/vector.inl": "using Int = std::int64_t;\n",
    "src/cpu/avx512/flash/f32.cpp": (
        '#include <immintrin.h>\n#include "attention/kernel.h"\n'
        'HEADWISE_TARGET_BEGIN("avx512f")\n#include "cpu/avx512/vector.inl"\nHEADWISE_TARGET_END\n'
        'const Kernel kAvx512FlashF32{"cpu/avx512/flash/f32"};\n'
    ),
    "src/cpu/scalar/naive/f32.cpp": 'const Kernel kScalarNaiveF32{"cpu/scalar/naive/f32"};\n',
    "src/dispatch/plan.cpp": '#include "attention/kernel.h"\n#include "headwise_version.h"\n',
    "src/lab/rows.h": '#include "oracle/oracle.h"\n#include <fmt/format.h>\n',
    "src/lab/rows_json.cpp": '#include <nlohmann/json.hpp>\n#include "headwise_build_info.h"\n#include "rows.h"\n',
    "src/cli/main.cpp": '#include <CLI/CLI.hpp>\n#include "lab/rows.h"\n',
    "tests/unit/core_test.cpp": "#include <gtest/gtest.h>\n",
    "CMakeLists.txt": "add_compile_options(-Wall)\n",
}


def breaches_of(changes):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**SOUND, **changes}.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return layering.Checker(folder).check()


class Repository(unittest.TestCase):
    def test_keeps_its_layers(self):
        breaches = layering.Checker(ROOT).check()
        self.assertEqual([], breaches, "\n" + "\n".join(breaches))

    def test_was_read(self):
        names = [layering.Checker(ROOT).name(path) for path in layering.Checker(ROOT).files("include", "src")]
        self.assertIn("include/headwise/attention.h", names)
        self.assertIn("src/cpu/kernels.cpp", names)


class PlantedBreaches(unittest.TestCase):
    def check_found(self, changes, *parts):
        breaches = breaches_of(changes)
        self.assertEqual(1, len(breaches), breaches)
        for part in parts:
            self.assertIn(part, breaches[0])

    def test_sound_house_has_none(self):
        self.assertEqual([], breaches_of({}))

    def test_public_header_includes_core(self):
        self.check_found({"include/headwise/status.h": '#include "core/text.h"\n'}, "include/headwise/status.h:1", "public may not include core")

    def test_public_header_includes_a_system_header(self):
        self.check_found({"include/headwise/status.h": "#include <unistd.h>\n"}, "standard library alone")

    def test_oracle_includes_attention(self):
        self.check_found({"src/oracle/oracle.cpp": '\n#include "attention/kernel.h"\n'}, "src/oracle/oracle.cpp:2", "oracle may not include attention")

    def test_lab_includes_cpu(self):
        self.check_found({"src/cpu/device.h": "", "src/lab/runner.cpp": '# include "cpu/device.h"\n'}, "lab may not include cpu")

    def test_relative_include_does_not_hide_the_layer(self):
        self.check_found({"src/cpu/device.h": "", "src/lab/runner.cpp": '#include "../cpu/device.h"\n'}, "lab may not include cpu")

    def test_cuda_and_cpu_apart(self):
        self.check_found({"src/cuda/absent.cpp": '#include "cpu/avx512/vector.inl"\n'}, "cuda may not include cpu")

    def test_library_includes_build_information(self):
        self.check_found({"src/core/text.cpp": '#include "headwise_build_info.h"\n'}, "only in src/lab")

    def test_include_of_nothing(self):
        self.check_found({"src/core/text.cpp": '#include "core/texts.h"\n'}, '"core/texts.h" is in neither')

    def test_new_area(self):
        self.check_found({"src/extra/a.cpp": ""}, "src/extra/a.cpp", "no layer")

    def test_json_elsewhere(self):
        self.check_found({"src/lab/rows.cpp": "#include <nlohmann/json.hpp>\n"}, "and src/lab/rows_json.cpp")

    def test_json_in_core(self):
        self.check_found({"src/core/text.cpp": "#include <nlohmann/json.hpp>\n"}, "src/core does not use")

    def test_cli11_in_a_third_file(self):
        more = {f"src/cli/{name}.cpp": "#include <CLI/CLI.hpp>\n" for name in ("bench", "verify")}
        self.check_found(more, "src/cli/verify.cpp:1", "more than 2 files")

    def test_unknown_library(self):
        self.check_found({"src/lab/rows.cpp": "#include <boost/any.hpp>\n"}, "does not use this library")

    def test_test_library_in_source(self):
        self.check_found({"src/lab/rows.cpp": "#include <gtest/gtest.h>\n"}, "does not use this library")

    def test_iostream_in_a_header(self):
        self.check_found({"src/lab/table.h": "#include <iostream>\n"}, "<iostream> in a header")

    def test_omp_pragma(self):
        self.check_found({"src/cpu/device.cpp": "#pragma omp parallel for\n"}, "OpenMP outside")

    def test_omp_header(self):
        self.check_found({"src/cpu/device.cpp": "#include <omp.h>\n"}, "<omp.h> outside")

    def test_header_inside_a_region(self):
        text = SOUND["src/cpu/avx512/flash/f32.cpp"].replace("HEADWISE_TARGET_END", "#include <vector>\nHEADWISE_TARGET_END")
        self.check_found({"src/cpu/avx512/flash/f32.cpp": text}, "f32.cpp:5", "inside a target region")

    def test_template_inside_a_region(self):
        self.check_found({"src/cpu/avx512/vector.inl": "auto m = std::max(a, b);\n"}, "std::max inside a target region")

    def test_inl_outside_a_region(self):
        self.check_found({"src/cpu/device.cpp": '#include "cpu/avx512/vector.inl"\n'}, "outside a target region")

    def test_region_left_open(self):
        text = SOUND["src/cpu/avx512/flash/f32.cpp"].replace("HEADWISE_TARGET_END\n", "")
        self.check_found({"src/cpu/avx512/flash/f32.cpp": text}, "without an END")

    def test_inl_with_include(self):
        self.check_found({"src/cpu/simd/flash.inl": "#include <cstdint>\n"}, "in an .inl")

    def test_inl_with_guard(self):
        self.check_found({"src/cpu/simd/flash.inl": "#pragma once\n"}, "include guard")

    def test_kernel_id_is_not_its_path(self):
        text = SOUND["src/cpu/scalar/naive/f32.cpp"].replace("naive/f32", "naive/f16")
        self.check_found({"src/cpu/scalar/naive/f32.cpp": text}, 'expected the kernel id "cpu/scalar/naive/f32"')

    def test_kernel_not_listed(self):
        self.check_found({"src/cpu/avx2/flash/bf16_kv_int8.cpp": 'x("cpu/avx2/flash/bf16_kv_int8");\n'}, "kAvx2FlashBf16KvInt8", "0 times")

    def test_listed_kernel_without_file(self):
        self.check_found({"src/cpu/kernels.cpp": SOUND["src/cpu/kernels.cpp"].replace("{", "{&kAmxFlashBf16, ")}, "kAmxFlashBf16 has no file")

    def test_instruction_set_flag(self):
        self.check_found({"CMakeLists.txt": "add_compile_options(-mavx2)\n"}, "CMakeLists.txt:1", "-mavx")

    def test_fast_math(self):
        self.check_found({"cmake/flags.cmake": "set(f -ffast-math)\n"}, "-ffast-math")

    def test_long_file(self):
        self.check_found({"tests/unit/core_test.cpp": "\n" * 551}, "551 lines")
        self.assertEqual([], breaches_of({"tests/unit/core_test.cpp": "\n" * 550}))

    def test_file_name(self):
        self.check_found({"src/core/Text.cpp": ""}, "snake_case")

    def test_comments_and_strings_are_not_code(self):
        text = '// #include "cpu/device.h"\n/*\n#include "lab/rows.h"\n#pragma omp\n*/\nauto s = R"(\n#include <boost/any.hpp>\n)";\n'
        self.assertEqual([], breaches_of({"src/core/text.cpp": text}))


if __name__ == "__main__":
    unittest.main()
