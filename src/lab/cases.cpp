// From words to cases and back (axes.h).
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>

#include "core/text.h"
#include "lab/axes.h"
#include "lab/presets.h"
#include "lab/sequence_inputs.h"
#include "lab/units.h"

namespace headwise::lab {
namespace {

constexpr std::size_t kMaxCases = 100'000;

struct Swept {
  const Axis* axis = nullptr;
  std::vector<std::string> values;
};

Status at(const std::string& where, std::string_view axis, const Status& status) {
  const std::string place = where.empty() ? fmt::format("--{}", axis) : fmt::format("{}: {}", where, axis);
  return {status.code(), fmt::format("{}: {}", place, status.message())};
}

const Word* find_word(const std::vector<Word>& words, std::string_view name) {
  const auto found =
      std::find_if(words.begin(), words.end(), [&](const Word& word) { return word.first == name; });
  return found == words.end() ? nullptr : &*found;
}

// A line and the flags, with a preset's words among them.
struct Product {
  Words line;
  std::vector<Word> flags;
};

// Adds words that neither has yet; seq stands for seq-q and seq-kv.
void add_missing(const std::vector<Word>& words, const std::vector<Word>& other, std::vector<Word>& target) {
  const auto given = [&](std::string_view name) {
    return find_word(other, name) != nullptr || find_word(target, name) != nullptr;
  };
  std::vector<Word> missing;
  for (const Word& word : words) {
    const bool by_seq = (word.first == "seq-q" || word.first == "seq-kv") && given("seq");
    if (!given(word.first) && !by_seq) missing.push_back(word);
  }
  target.insert(target.end(), missing.begin(), missing.end());
}

// One product for each preset that the flags, else the line, name. As a flag, a preset's words take the place
// of the line's; as a word of the line, they stand beneath its others. Typical words always stand beneath.
Result<std::vector<Product>> with_presets(const Words& line, const std::vector<Word>& flags) {
  const Word* flag = find_word(flags, "preset");
  const Word* named = flag != nullptr ? flag : find_word(line.words, "preset");
  if (named == nullptr) return std::vector<Product>{{line, flags}};
  Result<std::vector<std::string>> names = expand_values(*find_axis("preset"), named->second);
  if (!names) return at(flag != nullptr ? "" : line.where, "preset", names.status());
  std::vector<Product> products;
  for (const std::string& name : *names) {
    Result<const Preset*> preset = find_preset(name);
    if (!preset) return at(flag != nullptr ? "" : line.where, "preset", preset.status());
    Product product{line, flags};
    for (std::vector<Word>* words : {&product.line.words, &product.flags})
      std::erase_if(*words, [](const Word& word) { return word.first == "preset"; });
    product.line.words.emplace_back("preset", (*preset)->name);
    if (flag != nullptr) {
      add_missing((*preset)->words, {}, product.flags);
    } else {
      add_missing((*preset)->words, product.flags, product.line.words);
    }
    add_missing((*preset)->typical, product.flags, product.line.words);
    products.push_back(std::move(product));
  }
  return products;
}

// The line's words, replaced by flags of the same name, in the table's order.
Result<std::vector<Swept>> sweep(const Words& line, const std::vector<Word>& flags) {
  std::vector<Swept> swept;
  for (const Axis& axis : axes()) {
    const Word* flag = find_word(flags, axis.name);
    const Word* word = find_word(line.words, axis.name);
    if (flag == nullptr && word == nullptr) continue;
    const bool from_flag = flag != nullptr;
    Result<std::vector<std::string>> values = expand_values(axis, from_flag ? flag->second : word->second);
    if (!values) return at(from_flag ? "" : line.where, axis.name, values.status());
    swept.push_back({&axis, *std::move(values)});
  }
  return swept;
}

// Sizes that nobody gave: a captured file's, else the standards of the table.
Status fill_in(Draft& draft) {
  AttentionProblem standard{.batch = 1, .heads = 8, .seq_q = 1024, .seq_kv = 1024, .head_dim = 64};
  standard.kv_heads = 0;
  standard.head_dim_v = 0;
  const InputSpec& inputs = draft.result.inputs;
  if (inputs.kind == InputKind::captured) {
    Result<AttentionProblem> captured = captured_problem(inputs.file, inputs.layer);
    if (!captured) return captured.status();
    standard = *captured;
    if (!draft.result.problem.softmax_scale) draft.result.problem.softmax_scale = captured->softmax_scale;
  }
  AttentionProblem& p = draft.result.problem;
  const auto given_or = [](std::int64_t given, std::int64_t other) { return given > 0 ? given : other; };
  const bool seq_given = draft.seq >= 0;
  p.batch = draft.batch >= 0 ? draft.batch : standard.batch;
  p.heads = given_or(draft.heads, standard.heads);
  p.kv_heads =
      given_or(draft.kv_heads, draft.heads > 0 || standard.kv_heads == 0 ? p.heads : standard.kv_heads);
  p.head_dim = given_or(draft.head_dim, standard.head_dim);
  p.head_dim_v = given_or(draft.head_dim_v,
                          draft.head_dim > 0 || standard.head_dim_v == 0 ? p.head_dim : standard.head_dim_v);
  p.seq_q = draft.seq_q >= 0 ? draft.seq_q : seq_given ? draft.seq : standard.seq_q;
  p.seq_kv = draft.seq_kv >= 0 ? draft.seq_kv : seq_given ? draft.seq : standard.seq_kv;
  p.causal = draft.causal >= 0 ? draft.causal == 1 : standard.causal;
  if (!draft.kv_dtype_given) p.kv_dtype = p.dtype;
  return {};
}

Status finish(Draft& draft) {
  if (Status status = fill_in(draft); !status.ok()) return status;
  AttentionProblem& p = draft.result.problem;
  if (p.threads == 0) {
    Result<Device*> place = headwise::device(draft.result.device);
    p.threads = place ? (*place)->max_threads() : 1;
  }
  // Inputs are packed and aligned, so rows of head_dim elements decide.
  const auto row_bytes = static_cast<std::uint64_t>(p.head_dim) * size_of(p.dtype) |
                         static_cast<std::uint64_t>(p.head_dim_v) * size_of(p.dtype) |
                         static_cast<std::uint64_t>(p.head_dim) * size_of(p.kv_dtype) |
                         static_cast<std::uint64_t>(p.head_dim_v) * size_of(p.kv_dtype);
  p.pointer_alignment = 1 << std::min(4, std::countr_zero(row_bytes));
  const bool placed = p.causal || p.window_left >= 0 || p.window_right >= 0;
  if (placed && p.seq_q != p.seq_kv && p.align == Align::unspecified) {
    return Status::invalid_argument(
        fmt::format("align is needed where causal or a window is set and seq_q ({}) differs from seq_kv "
                    "({}): top_left puts "
                    "query i at key i (torch), bottom_right at key i + seq_kv - seq_q (decoding with a "
                    "cache); give --align "
                    "bottom_right, or align=bottom_right in a suite",
                    p.seq_q, p.seq_kv));
  }
  if (Status status = validate(p); !status.ok()) return status;
  p = completed(p);
  return check_sequences(p);
}

// The cases of products so far, each once.
class Cases {
 public:
  Status add(const Product& product) {
    const std::string& where = product.line.where;
    Result<std::vector<Swept>> swept = sweep(product.line, product.flags);
    if (!swept) return swept.status();
    std::size_t count = 1;
    for (const Swept& one : *swept) {
      count *= one.values.size();  // 10,000 values at most, and count at most kMaxCases: no overflow
      if (count > kMaxCases || cases_.size() + count > kMaxCases) {
        return Status::invalid_argument(fmt::format("{}more than {} cases; shorten the lists",
                                                    where.empty() ? "" : where + ": ", kMaxCases));
      }
    }
    for (std::size_t index = 0; index < count; ++index) {
      Draft draft;
      std::size_t rest = index, block = count;
      for (const Swept& one : *swept) {
        block /= one.values.size();
        const std::string& value = one.values[rest / block];
        rest %= block;
        if (Status status = one.axis->apply(draft, value); !status.ok())
          return at(where, one.axis->name, status);
      }
      if (Status status = finish(draft); !status.ok())
        return where.empty() ? status : Status{status.code(), where + ": " + status.message()};
      keep(std::move(draft.result));
    }
    return {};
  }

  std::vector<Case> take() { return std::move(cases_); }

 private:
  // Presets of the same sizes are one case under both names.
  void keep(Case&& one) {
    const std::string key = fmt::format("{} {} {} {}", case_id(one), fmt::join(one.kernels, ","),
                                        fmt::join(one.peers, ","), one.baseline);
    const auto [found, is_new] = seen_.emplace(key, cases_.size());
    if (is_new) {
      cases_.push_back(std::move(one));
      return;
    }
    std::string& presets = cases_[found->second].preset;
    const std::vector<std::string_view> names = core::split(presets, ',');
    if (one.preset.empty() || std::find(names.begin(), names.end(), one.preset) != names.end()) return;
    presets += fmt::format("{}{}", presets.empty() ? "" : ",", one.preset);
  }

  std::vector<Case> cases_;
  std::map<std::string, std::size_t> seen_;
};

}  // namespace

Result<std::vector<Case>> make_cases(const std::vector<Words>& lines, const std::vector<Word>& flags) {
  Cases cases;
  for (const Words& line : lines) {
    Result<std::vector<Product>> products = with_presets(line, flags);
    if (!products) return products.status();
    for (const Product& product : *products) {
      if (Status status = cases.add(product); !status.ok()) return status;
    }
  }
  return cases.take();
}

std::vector<Word> words_of(const Case& one) {
  std::vector<Word> words;
  for (const Axis& axis : axes()) {
    if (std::string value = axis.show(one); !value.empty()) words.emplace_back(axis.name, std::move(value));
  }
  return words;
}

std::string case_id(const Case& one) {
  std::string text;
  for (const auto& [axis, value] : words_of(one))
    text += fmt::format("{}{}={}", text.empty() ? "" : " ", axis, value);
  return text;
}

std::string reproducer(const Case& one, std::string_view contender, bool peer) {
  std::string text = "headwise bench";
  for (const auto& [axis, value] : words_of(one)) text += fmt::format(" --{} {}", axis, shell_word(value));
  if (peer) return fmt::format("{} --kernels none --peers {} --baseline none", text, shell_word(contender));
  if (contender != kNobody) text += fmt::format(" --kernels {}", shell_word(contender));
  return fmt::format("{} --baseline {}", text, shell_word(one.baseline));
}

}  // namespace headwise::lab
