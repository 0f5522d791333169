// Appending to contiguous and paged caches: every element of the cache is either the new row's or untouched.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "headwise/headwise.h"
#include "support/poisoned.h"

namespace headwise {
namespace {

using test::PoisonedTensor;

constexpr std::int64_t kSeqNew = 4, kKvHeads = 2, kHeadDim = 6, kHeadDimV = 5, kCapacity = 9, kPageSize = 3,
                       kPages = 7;

struct Options {
  DType rows = DType::f32;
  DType cache = DType::f32;
  bool paged = false;
  bool packed = false;
};

// Two sequences, 5 and 0 keys long, that append 4 rows each, or what counts or cu_seqlens_new say.
struct AppendCase {
  Options options;
  PoisonedTensor k_new, v_new, k_cache, v_cache, lengths_out;
  // The place after the last may hold anything: -1 and 99 are no pages.
  std::vector<std::int32_t> lengths = {5, 0}, table = {6, 2, 0, 5, 3, -1}, counts = {4, 4},
                            offsets = {0, 4, 8};
  RotaryTables tables = *make_rotary_tables(kCapacity, 4);
  CacheAppendArgs args;

  explicit AppendCase(Options o = {})
      : options(o),
        k_new(o.rows, {o.packed ? 1 : 2, o.packed ? 2 * kSeqNew : kSeqNew, kKvHeads, kHeadDim}),
        v_new(o.rows, {o.packed ? 1 : 2, o.packed ? 2 * kSeqNew : kSeqNew, kKvHeads, kHeadDimV}, 1),
        k_cache(o.cache, {o.paged ? kPages : 2, o.paged ? kPageSize : kCapacity, kKvHeads, kHeadDim}, 2),
        v_cache(o.cache, {o.paged ? kPages : 2, o.paged ? kPageSize : kCapacity, kKvHeads, kHeadDimV}, 0),
        lengths_out(DType::int32, {2}) {
    std::mt19937_64 generator(17);
    for (PoisonedTensor* tensor : {&k_new, &v_new, &k_cache, &v_cache}) tensor->fill_normal(generator);
    args = {.k_new = k_new.view,
            .v_new = v_new.view,
            .k_cache = k_cache.view,
            .v_cache = v_cache.view,
            .lengths_kv = contiguous(lengths.data(), {2}),
            .lengths_out = lengths_out.view};
    if (o.paged) args.block_table = contiguous(table.data(), {2, 3});
    if (o.packed) args.cu_seqlens_new = contiguous(offsets.data(), {3});
  }
  [[nodiscard]] std::int64_t length(std::size_t b) const {
    return args.lengths_kv.present() ? lengths[b] : 0;
  }
  [[nodiscard]] std::int64_t count(std::size_t b) const {
    if (options.packed) return offsets[b + 1] - offsets[b];
    return args.counts_new.present() ? counts[b] : kSeqNew;
  }
  [[nodiscard]] std::int32_t length_after(std::size_t b) const {
    return lengths_out.view.as<const std::int32_t>()[lengths_out.at(static_cast<std::int64_t>(b))];
  }
  [[nodiscard]] bool untouched() const {
    return k_cache.unchanged() && v_cache.unchanged() && lengths_out.unchanged() && k_new.unchanged() &&
           v_new.unchanged();
  }

  // Which new row (item, row; -1: none) place (item, slot) of the cache got.
  struct Source {
    std::int64_t item = -1, row = -1, place = -1;
  };
  [[nodiscard]] Source source(std::int64_t item, std::int64_t slot) const {
    for (std::size_t b = 0; b < 2; ++b) {
      for (std::int64_t r = 0; r < count(b); ++r) {
        const std::int64_t place = length(b) + r;
        const auto at = 3 * b + static_cast<std::size_t>(place / kPageSize);
        const bool here = options.paged ? item == table[at] && slot == place % kPageSize
                                        : item == static_cast<std::int64_t>(b) && slot == place;
        if (!here) continue;
        return options.packed ? Source{0, offsets[b] + r, place}
                              : Source{static_cast<std::int64_t>(b), r, place};
      }
    }
    return {};
  }
  // Channel d of a new key, turned by its place where there is a rotation.
  [[nodiscard]] double key(const Source& s, std::int64_t h, std::int64_t d) const {
    const double value = k_new.get(s.item, s.row, h, d);
    if (!args.rotary.present() || d >= 4) return value;
    const bool halves = args.rotary.layout == RotaryLayout::halves;
    const std::int64_t pair = halves ? d % 2 : d / 2;
    const double a = k_new.get(s.item, s.row, h, halves ? pair : 2 * pair);
    const double b = k_new.get(s.item, s.row, h, halves ? pair + 2 : 2 * pair + 1);
    const double angle = static_cast<double>(s.place) * (pair == 0 ? 1.0 : 0.01);  // 10000^(-2 / 4)
    const bool first = halves ? d < 2 : d % 2 == 0;
    return first ? a * std::cos(angle) - b * std::sin(angle) : a * std::sin(angle) + b * std::cos(angle);
  }
  void expect_appended() const {
    const double unit = options.cache == DType::f32   ? 0x1p-24
                        : options.cache == DType::f16 ? 0x1p-11
                                                      : 0x1p-8;
    k_cache.each([&](auto item, auto slot, auto h, auto d) {
      const Source from = source(item, slot);
      if (from.item < 0) return;
      const double expected = key(from, h, d);
      const bool exact = options.rows == options.cache && (!args.rotary.present() || d >= 4);
      EXPECT_NEAR(k_cache.get(item, slot, h, d), expected, exact ? 0 : unit * std::abs(expected) + 1e-6);
    });
    v_cache.each([&](auto item, auto slot, auto h, auto d) {
      const Source from = source(item, slot);
      if (from.item < 0) return;
      const double expected = v_new.get(from.item, from.row, h, d);
      EXPECT_NEAR(v_cache.get(item, slot, h, d), expected,
                  options.rows == options.cache ? 0 : unit * std::abs(expected) + 1e-7);
    });
    const auto got_a_row = [&](auto item, auto slot, auto, auto) { return source(item, slot).item >= 0; };
    EXPECT_TRUE(k_cache.unchanged_but_for(got_a_row) && v_cache.unchanged_but_for(got_a_row));
    EXPECT_TRUE(k_new.unchanged() && v_new.unchanged() && lengths_out.surroundings_unchanged());
    if (!args.lengths_out.present()) return;
    for (const std::size_t b : {0U, 1U}) EXPECT_EQ(length_after(b), length(b) + count(b)) << b;
  }
};

std::vector<Options> all_options() {
  std::vector<Options> all;
  for (const bool paged : {false, true}) {
    for (const bool packed : {false, true}) {
      for (const DType cache : {DType::f32, DType::f16, DType::bf16}) {
        all.push_back({DType::f32, cache, paged, packed});
        if (cache != DType::f32) all.push_back({cache, cache, paged, packed});
      }
    }
  }
  return all;
}

TEST(CacheAppend, PutsEachRowAtTheEndOfItsSequence) {
  for (const Options& options : all_options()) {
    AppendCase c(options);
    const Status status = append_to_cache(c.args);
    ASSERT_TRUE(status.ok()) << status.message();
    c.expect_appended();
  }
}

TEST(CacheAppend, RotatesKeysByTheirPlaces) {
  for (const RotaryLayout layout : {RotaryLayout::halves, RotaryLayout::interleaved}) {
    for (const Options& options : all_options()) {
      AppendCase c(options);
      c.args.rotary = c.tables.rotary(layout);
      const Status status = append_to_cache(c.args);
      ASSERT_TRUE(status.ok()) << status.message();
      c.expect_appended();
    }
  }
}

TEST(CacheAppend, CountsSayHowManyRowsEachSequenceGets) {
  for (const bool paged : {false, true}) {
    for (const std::vector<std::int32_t>& counts :
         std::vector<std::vector<std::int32_t>>{{1, 3}, {0, 4}, {4, 0}, {0, 0}}) {
      AppendCase c({.paged = paged});
      c.counts = counts;
      c.args.counts_new = contiguous(c.counts.data(), {2});
      ASSERT_TRUE(append_to_cache(c.args).ok());
      c.expect_appended();
      AppendCase packed({.paged = paged, .packed = true});
      packed.offsets = {0, counts[0], counts[0] + counts[1]};
      packed.args.k_new.shape[1] = packed.args.v_new.shape[1] = packed.offsets[2];
      ASSERT_TRUE(append_to_cache(packed.args).ok());
      packed.expect_appended();
    }
  }
}

TEST(CacheAppend, LengthsAreOptionalAndMayBeWrittenInPlace) {
  AppendCase c;
  c.args.lengths_kv = {};
  c.args.lengths_out = {};
  ASSERT_TRUE(append_to_cache(c.args).ok());
  c.expect_appended();
  EXPECT_TRUE(c.lengths_out.unchanged());

  AppendCase growing;
  growing.lengths = {0, 0};
  growing.args.lengths_out = growing.args.lengths_kv;
  ASSERT_TRUE(append_to_cache(growing.args).ok());
  EXPECT_EQ(growing.lengths, (std::vector<std::int32_t>{4, 4}));
  ASSERT_TRUE(append_to_cache(growing.args).ok());
  EXPECT_EQ(growing.lengths, (std::vector<std::int32_t>{8, 8}));
  EXPECT_FALSE(append_to_cache(growing.args).ok());  // room for 9
  EXPECT_EQ(growing.lengths, (std::vector<std::int32_t>{8, 8}));
}

TEST(CacheAppend, OneTensorAlone) {
  AppendCase c;
  c.args.v_new = c.args.v_cache = {};
  ASSERT_TRUE(append_to_cache(c.args).ok());
  EXPECT_TRUE(c.v_cache.unchanged());
  EXPECT_EQ(c.k_cache.get(0, 5, 1, 2), c.k_new.get(0, 0, 1, 2));
}

TEST(CacheAppend, RowsOfTheCachesDTypeKeepTheirBits) {
  AppendCase c({DType::f16, DType::f16});
  c.k_new.view.as<std::uint16_t>()[c.k_new.at(0, 1, 1, 3)] = 0x7d01;  // a signalling NaN
  ASSERT_TRUE(append_to_cache(c.args).ok());
  EXPECT_EQ(c.k_cache.view.as<std::uint16_t>()[c.k_cache.at(0, 6, 1, 3)], 0x7d01);
}

TEST(CacheAppend, KeysAndValuesMayShareAnAllocation) {
  // [2, kind, ...]: k and v of a sequence are neighbours, as in caches of one buffer.
  std::vector<float> cache(2 * 2 * kCapacity * kKvHeads * kHeadDim, -1.0F);
  AppendCase c;
  c.args.v_new = c.args.k_new;
  c.args.k_cache = contiguous(cache.data(), {2, kCapacity, kKvHeads, kHeadDim});
  c.args.k_cache.stride[0] *= 2;
  c.args.v_cache = c.args.k_cache;
  c.args.v_cache.data = cache.data() + kCapacity * kKvHeads * kHeadDim;
  const Status status = append_to_cache(c.args);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(cache[static_cast<std::size_t>(5 * kKvHeads * kHeadDim)], c.k_new.get(0, 0, 0, 0));
  EXPECT_EQ(cache[static_cast<std::size_t>((kCapacity + 5) * kKvHeads * kHeadDim)], c.k_new.get(0, 0, 0, 0));
}

TEST(CacheAppend, LargeOnesTakeThreads) {
  const std::int64_t seq = 600;
  std::mt19937_64 generator(5);
  PoisonedTensor rows(DType::f32, {2, seq, 2, 64}), k(DType::bf16, {2, seq + 7, 2, 64}),
      v(DType::bf16, {2, seq + 7, 2, 64});
  rows.fill_normal(generator);
  const RotaryTables tables = *make_rotary_tables(seq + 7, 64);
  std::vector<std::int32_t> lengths = {7, 3};
  ASSERT_TRUE(append_to_cache({.k_new = rows.view,
                               .v_new = rows.view,
                               .k_cache = k.view,
                               .v_cache = v.view,
                               .lengths_kv = contiguous(lengths.data(), {2}),
                               .rotary = tables.rotary(RotaryLayout::halves)},
                              {.threads = 4})
                  .ok());
  // The same, rotated apart.
  PoisonedTensor rotated(DType::bf16, {2, seq, 2, 64});
  ASSERT_TRUE(apply_rotary({.x = rows.view,
                            .out = rotated.view,
                            .rotary = tables.rotary(RotaryLayout::halves),
                            .positions = contiguous(lengths.data(), {2})})
                  .ok());
  rows.each([&](auto b, auto r, auto h, auto d) {
    const std::int64_t place = lengths[static_cast<std::size_t>(b)] + r;
    ASSERT_EQ(k.get(b, place, h, d), rotated.get(b, r, h, d));
    ASSERT_EQ(v.get(b, place, h, d), to_double(from_double<bfloat16>(rows.get(b, r, h, d))));
  });
}

TEST(CacheAppend, ZeroSizes) {
  for (const bool paged : {false, true}) {
    AppendCase c({.paged = paged});
    c.args.k_new.shape[1] = c.args.v_new.shape[1] = 0;
    ASSERT_TRUE(append_to_cache(c.args).ok());
    EXPECT_EQ(c.length_after(0), 5);
    EXPECT_TRUE(c.k_cache.unchanged() && c.v_cache.unchanged());
    AppendCase none({.paged = paged});
    for (TensorView* tensor :
         {&none.args.k_new, &none.args.v_new, &none.args.lengths_kv, &none.args.lengths_out})
      tensor->shape[0] = 0;
    (paged ? none.args.block_table : none.args.k_cache).shape[0] = 0;
    if (!paged) none.args.v_cache.shape[0] = 0;
    const Status status = append_to_cache(none.args);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(none.untouched());
  }
}

struct Fault {
  const char* expected;
  void (*spoil)(AppendCase&);
  bool paged = false;
  bool packed = false;
  StatusCode code = StatusCode::invalid_argument;
};

void expect_refused(const std::vector<Fault>& faults) {
  for (const Fault& fault : faults) {
    AppendCase c({.paged = fault.paged, .packed = fault.packed});
    fault.spoil(c);
    const Status status = append_to_cache(c.args);
    EXPECT_EQ(status.code(), fault.code) << fault.expected << " <- " << status.message();
    EXPECT_NE(status.message().find(fault.expected), std::string::npos)
        << fault.expected << " <- " << status.message();
    EXPECT_TRUE(c.untouched()) << fault.expected;
    AppendCase good({.paged = fault.paged, .packed = fault.packed});
    ASSERT_TRUE(append_to_cache(good.args).ok());
    good.expect_appended();
  }
}

using C = AppendCase;

TEST(CacheAppend, RefusesTensorsThatDoNotFit) {
  expect_refused({
      {"k_new: missing", [](C& c) { c.args.k_new = {}; }},
      {"k_cache: missing", [](C& c) { c.args.k_cache = {}; }},
      {"v_cache: missing; give v_new and v_cache, or neither", [](C& c) { c.args.v_cache = {}; }},
      {"v_new: missing; give v_new and v_cache, or neither", [](C& c) { c.args.v_new = {}; }},
      {"k_cache.dtype: expected f32, f16, bf16, got e4m3", [](C& c) { c.args.k_cache.dtype = DType::e4m3; }},
      {"v_cache.dtype: expected f32 (dtype of k_cache), got bf16",
       [](C& c) { c.args.v_cache.dtype = DType::bf16; }},
      {"v_new.dtype: expected f32 (dtype of k_new), got f16", [](C& c) { c.args.v_new.dtype = DType::f16; }},
      {"k_new.dtype: expected f32 (dtype of k_cache, or f32), got bf16",
       [](C& c) { c.args.k_new.dtype = c.args.v_new.dtype = DType::bf16; }},
      {"k_new.shape[2]: expected 2 (kv_heads of k_cache), got 1",
       [](C& c) { c.args.k_new.shape[2] = c.args.v_new.shape[2] = 1; }},
      {"k_new.shape[3]: expected 6 (head_dim of k_cache), got 4", [](C& c) { c.args.k_new.shape[3] = 4; }},
      {"v_new.shape[3]: expected 5 (head_dim_v of v_cache), got 4", [](C& c) { c.args.v_new.shape[3] = 4; }},
      {"v_new.shape[1]: expected 4 (as k_new), got 3", [](C& c) { c.args.v_new.shape[1] = 3; }},
      {"v_cache.shape[1]: expected 9 (as k_cache), got 8", [](C& c) { c.args.v_cache.shape[1] = 8; }},
      {"k_cache.shape[0]: expected 2 (batch of k_new), got 1",
       [](C& c) { c.args.k_cache.shape[0] = c.args.v_cache.shape[0] = 1; }},
      {"k_cache.stride[1]: expected at least", [](C& c) { c.args.k_cache.stride[1] = 1; }},
      {"lengths_out.dtype: expected int32", [](C& c) { c.args.lengths_out.dtype = DType::f32; }},
      {"lengths_out.shape[0]: expected 2", [](C& c) { c.args.lengths_out.shape[0] = 1; }},
      {"k_cache: shares memory with k_new", [](C& c) { c.args.k_cache.data = c.args.k_new.data; }},
      {"v_cache: shares memory with k_cache",
       [](C& c) { c.args.v_cache.data = c.args.k_cache.as<float>() + 7; }},
      {"lengths_out: shares memory with k_cache",
       [](C& c) { c.args.lengths_out.data = c.args.k_cache.data; }},
      {"v_cache: shares memory with lengths_kv",
       [](C& c) {
         std::copy(c.lengths.begin(), c.lengths.end(), c.v_cache.view.as<std::int32_t>());
         c.v_cache.remember();
         c.args.lengths_kv.data = c.args.v_cache.data;
       }},
      {"k_new.device: expected cpu, got cuda:0", [](C& c) { c.args.k_new.device = {DeviceKind::cuda, 0}; },
       false, false, StatusCode::unsupported},
      {"lengths_kv.device: expected cpu, got cuda:0",
       [](C& c) { c.args.lengths_kv.device = {DeviceKind::cuda, 0}; }, false, false, StatusCode::unsupported},
      {"rotary.layout: required", [](C& c) { c.args.rotary = c.tables.rotary(RotaryLayout::unspecified); }},
      {"rotary.cos.shape[0]: expected at least 9 positions (places of new keys of sequence 0), got 8",
       [](C& c) {
         c.args.rotary = c.tables.rotary(RotaryLayout::halves);
         c.args.rotary.cos.shape[0] = c.args.rotary.sin.shape[0] = 8;
       }},
  });
}

TEST(CacheAppend, RefusesPlacesThatAreNotThere) {
  expect_refused({
      {"k_cache: sequence 0 has room for 9 keys; 6 in use and 4 new ones are more; give it a larger cache",
       [](C& c) { c.lengths[0] = 6; }},
      {"lengths_kv[1]: expected 0 to 9 (keys there is room for), got -1", [](C& c) { c.lengths[1] = -1; }},
      {"lengths_kv[0]: expected 0 to 9 (keys there is room for), got 10", [](C& c) { c.lengths[0] = 10; }},
      {"lengths_kv.shape[0]: expected 2", [](C& c) { c.args.lengths_kv.shape[0] = 1; }},
      {"counts_new[1]: expected 0 to 4 (rows of k_new), got 5",
       [](C& c) { c.counts = {1, 5}, c.args.counts_new = contiguous(c.counts.data(), {2}); }},
      {"counts_new[0]: expected 0 to 4 (rows of k_new), got -1",
       [](C& c) { c.counts = {-1, 2}, c.args.counts_new = contiguous(c.counts.data(), {2}); }},
      {"counts_new: not with cu_seqlens_new",
       [](C& c) { c.args.counts_new = contiguous(c.counts.data(), {2}); }, false, true},
      {"cu_seqlens_new[2]: expected 8 (rows of k_new), got 7", [](C& c) { c.offsets[2] = 7; }, false, true},
      {"cu_seqlens_new[2]: expected at least 9 (the entry before), got 8", [](C& c) { c.offsets[1] = 9; },
       false, true},
      {"k_new.shape[0]: expected 1", [](C& c) { c.args.cu_seqlens_new = contiguous(c.offsets.data(), {3}); }},
      {"block_table: sequence 0 has room for 9 keys; 8 in use and 4 new ones are more; give it more pages",
       [](C& c) { c.lengths[0] = 8; }, true},
      {"block_table[0, 2]: expected a page from 0 to 6, got 7", [](C& c) { c.table[2] = 7; }, true},
      {"block_table[1, 1]: expected a page from 0 to 6, got -3", [](C& c) { c.table[4] = -3; }, true},
      {"block_table[1, 0]: page 0 gets new rows at the same places from block_table[0, 2]; give each growing "
       "sequence",
       [](C& c) { c.table[3] = 0; }, true},
      {"block_table[1, 1]: page 5 gets new rows at the same places from block_table[1, 0]",
       [](C& c) { c.table[4] = 5; }, true},
      {"block_table.shape[0]: expected 2", [](C& c) { c.args.block_table.shape[0] = 1; }, true},
      {"k_cache.shape[1] (page_size): expected at least 1, got 0",
       [](C& c) { c.args.k_cache.shape[1] = c.args.v_cache.shape[1] = 0; }, true},
      {"v_cache: shares memory with block_table",
       [](C& c) {
         std::copy(c.table.begin(), c.table.end(), c.v_cache.view.as<std::int32_t>());
         c.v_cache.remember();
         c.args.block_table.data = c.args.v_cache.data;
       },
       true},
  });
  // Pages of which one is shared at places that differ: the page of both is written, each row to its own
  // place.
  AppendCase c({.paged = true});
  c.lengths = {4, 0};
  c.counts = {1, 1};
  c.args.counts_new = contiguous(c.counts.data(), {2});
  c.table[3] = c.table[1];
  EXPECT_TRUE(append_to_cache(c.args).ok());
  c.expect_appended();
}

}  // namespace
}  // namespace headwise
