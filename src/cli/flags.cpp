#include "flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "core/text.h"
#include "lab/environment.h"
#include "lab/units.h"

namespace headwise::cli {
namespace {

constexpr const char* kMainFooter = R"(
Examples:
  headwise bench                                     the default suite on this machine
  headwise bench --seq 512..4096*2 --causal 0,1      a sweep of your own
  headwise bench --suite default --out run.jsonl --report run.html
  headwise explain --seq 4096 --causal               who would run this, and why
  headwise list kernels

Exit codes: 0 good; 1 a row is inaccurate or an error, or a file could not be written; 3 usage;
4 nothing asked for could run because a device is absent; 130 interrupted (the rows so far are kept).)";

constexpr const char* kBenchFooter = R"(
Values are lists (1,4) and ranges (512..8192*2, 128..1024+128); all of them together form the product.
A flag replaces the same word of every line of a suite.

Examples:
  headwise bench --seq 128..4096*2 --causal 0,1 --kernels flash,unfused
  headwise bench --heads 32 --kv-heads 8 --seq-q 1 --seq-kv 4096 --causal --align bottom_right
  headwise bench --inputs captured --out captured.jsonl --report captured.html
  headwise bench --suite default --threads 1 --dry-run
  headwise bench --preset llama-3-70b --seq 1024 --inputs structured
  headwise bench --suite default --out run.jsonl --resume      after a kill, or again: what is missing)";

constexpr const char* kVerifyFooter = R"(
The same cells as bench, checked against fp64 and not timed.

Examples:
  headwise verify --suite default
  headwise verify --seq 1..64*2 --head-dim 40 --dtype f16,bf16 --kernels naive)";

constexpr const char* kExplainFooter = R"(
Takes a problem as flags, or as the words of a row's case.

Examples:
  headwise explain --seq 4096 --dtype bf16 --causal
  headwise explain batch=1 seq=512 heads=8 head-dim=64 dtype=f32)";

constexpr const char* kListFooter = R"(
Examples:
  headwise list
  headwise list kernels
  headwise list axes fields)";

constexpr const char* kReportFooter = R"(
Draws one self-contained HTML file from a result file, its charts as files, or its rows as CSV or Markdown;
nothing is measured. Where anything but the page is asked for, the page is drawn where --out names it.

Examples:
  headwise report run.jsonl --out run.html
  headwise report run.jsonl --csv run.csv --markdown run.md
  headwise report run.jsonl --svg charts --png charts
  headwise report run.jsonl --svg charts --view 'mask=causal&at.phase=prefill')";

constexpr const char* kForeignFlags = "Flags of other attention benchmarks, for those who know them";

const char* type_name(lab::AxisType type) {
  switch (type) {
    case lab::AxisType::integer: return "N";
    case lab::AxisType::number: return "X";
    case lab::AxisType::boolean: return "[0,1]";
    case lab::AxisType::choice:
    case lab::AxisType::text: return "NAME";
    case lab::AxisType::names: return "NAMES";
  }
  return "";
}

// CLI11's texts are one line an option: the table's help with its standard value.
void add_axes(CLI::App& command, std::vector<std::pair<CLI::Option*, const lab::Axis*>>& options) {
  for (const lab::Axis& axis : lab::axes()) {
    // const: add_option takes an lvalue string that is not for the variable to fill.
    const std::string help = fmt::format(
        "{}{} [{}]", axis.help,
        axis.choices.empty() ? "" : fmt::format(": {}", fmt::join(axis.choices, ", ")), axis.standard);
    const bool foreign = axis.name == "threshold" || axis.name == "topk";
    CLI::Option* option = command.add_option(fmt::format("--{}", axis.name), help);
    option->group(foreign ? kForeignFlags : "Axes");
    option->type_name(type_name(axis.type));
    // A boolean flag alone is true; a list of values sweeps it.
    option->expected(axis.type == lab::AxisType::boolean ? 0 : 1, 1);
    options.emplace_back(option, &axis);
  }
}

// Two flags of one meaning, of which a command line may have one.
struct Synonyms {
  const CLI::Option* own;
  const CLI::Option* foreign;
};

struct Commands {
  std::vector<std::pair<CLI::Option*, const lab::Axis*>> axis_options;
  const CLI::Option* result_file = nullptr;
  std::vector<Synonyms> synonyms;
  Invocation invocation;
};

// CLI::Range lets NaN through: it is neither below nor above.
void add_seconds(CLI::App& command, const char* name, double& seconds, double least, const char* help) {
  command.add_option(name, seconds, help)
      ->type_name("S")
      ->check(CLI::Validator(
          [least](const std::string& text) {
            const auto value = core::parse_number<double>(text);
            return value && *value >= least && *value <= 1e6
                       ? std::string()
                       : fmt::format("expected seconds from {} to 1000000, got '{}'", least, text);
          },
          ""));
}

void add_table_options(CLI::App& command, Invocation& i) {
  command.add_option("--csv", i.csv, "write the rows with all their fields to this file")->type_name("FILE");
  command.add_option("--markdown", i.markdown, "write the rows as a table to this file")->type_name("FILE");
}

CLI::Option* add_samples(CLI::App& command, const char* names, int& samples, const char* help) {
  return command.add_option(names, samples, help)
      ->type_name("N")
      ->check(CLI::Validator(
          [](const std::string& text) {
            const auto value = core::parse_number<int>(text);
            return value && *value >= 1 && *value <= 1'000'000
                       ? std::string()
                       : fmt::format("expected a whole number from 1 to 1000000, got '{}'", text);
          },
          ""));
}

// The flags of the benchmarks whose shapes the suites source-* have, with the meaning they have there.
void add_foreign_flags(CLI::App& command, Commands& commands, bool bench) {
  Invocation& i = commands.invocation;
  const auto add = [&](CLI::Option* option, const char* own) {
    option->group(kForeignFlags);
    commands.synonyms.push_back({command.get_option(own), option});
  };
  const auto add_axis = [&](const char* name, const char* axis_name, const std::string& help) {
    const lab::Axis* axis = lab::find_axis(axis_name);
    CLI::Option* option = command.add_option(name, help)->type_name(type_name(axis->type))->expected(1);
    add(option, fmt::format("--{}", axis_name).c_str());
    commands.axis_options.emplace_back(option, axis);
  };
  add_axis("--context", "seq-kv",
           "--seq-kv. LLMIR always masks causally, from the top left; here --causal --align top_left say so");
  add_axis("--dim", "head-dim", "--head-dim");
  add_axis("--models", "preset", "--preset; of a layer, its attention: projections are not built yet");
  add(command.add_option("--output", i.csv, "--csv")->type_name("FILE"), "--csv");
  if (!bench) return;
  add(add_samples(command, "--trials", i.samples, "--samples; here after a warm-up"), "--samples");
  add(add_samples(command, "--num-runs,--num_runs", i.samples, "--samples"), "--samples");
}

void add_peer_python(CLI::App& command, Invocation& i) {
  command
      .add_option("--peer-python", i.peer_python,
                  "a Python that has the peers' libraries [each set's own, which make peers makes]")
      ->type_name("PATH");
}

void add_run_options(CLI::App& command, Commands& commands, bool bench) {
  Invocation& i = commands.invocation;
  command.add_option("--suite", i.suite, "a suite by name (headwise list suites) or by path")
      ->type_name("NAME");
  command.add_option("--out", i.out, "write the rows as JSON lines to this file")->type_name("FILE");
  command.add_flag(
      "--resume", i.resume,
      "go on with the run that left --out or its temporary file: its rows are kept, whatever their "
      "status; cases that lack a contender run again as a whole");
  command.add_option("--report", i.report, "draw the report to this HTML file")->type_name("FILE");
  add_table_options(command, i);
  command.add_flag("--dry-run", i.dry_run,
                   "list the cells with the memory and time they would take, and run none");
  if (bench) {
    add_seconds(command, "--seconds", i.seconds, 0,
                "samples of a contender in a cell end after this, or at 1 % [2]");
    add_samples(command, "--samples", i.samples,
                "exactly so many samples of a contender in a cell, unless --max-seconds is over before");
    command.add_flag("--no-peaks", i.no_peaks,
                     "do not measure the machine's peaks (1.5 s), which the report's roofline is drawn from");
  }
  add_seconds(command, "--max-seconds", i.max_seconds, 0.001,
              "of a whole cell; the rest of it is then `timeout` [120]");
  command.add_flag("--quiet", i.quiet, "no progress on stderr");
  add_peer_python(command, i);
  command.add_flag("--host-name", i.host_name,
                   "record the machine's name (left out otherwise: results are shared)");
  add_axes(command, commands.axis_options);
  add_foreign_flags(command, commands, bench);
}

void add_commands(CLI::App& app, Commands& commands) {
  Invocation& i = commands.invocation;
  CLI::App* bench = app.add_subcommand("bench", "run kernels side by side: verify each, then measure it");
  bench->footer(kBenchFooter);
  add_run_options(*bench, commands, true);

  CLI::App* verify = app.add_subcommand("verify", "check kernels against fp64 truth, without timing");
  verify->footer(kVerifyFooter);
  add_run_options(*verify, commands, false);

  CLI::App* explain = app.add_subcommand("explain", "which kernel a problem gets, and why not the others");
  explain->footer(kExplainFooter);
  explain->add_option("words", i.positionals, "the problem in suite words: seq=512 causal=1");
  add_axes(*explain, commands.axis_options);

  CLI::App* list =
      app.add_subcommand("list", "kernels, peers, suites, axes, presets, inputs, charts, fields, matrix");
  list->footer(kListFooter);
  list->add_option(
      "what", i.positionals,
      "kernels, peers, suites, axes, presets, inputs, charts, fields, or matrix: what each kernel "
      "supports, in Markdown [all but peers, fields and matrix]");
  list->add_flag("--peers", i.list_peers,
                 "other people's attention: versions, devices and dtypes, or why one is absent");
  add_peer_python(*list, i);

  CLI::App* info = app.add_subcommand("info", "this machine and build, as each result file records them");
  info->add_flag("--host-name", i.host_name, "with the machine's name");
  info->add_flag("--peaks", i.peaks,
                 "measure what the machine can do at most: arithmetic and reading memory");

  CLI::App* report = app.add_subcommand("report", "draw the report of a result file");
  report->footer(kReportFooter);
  commands.result_file =
      report->add_option("file", i.positionals, "result file (JSON lines)")->required()->expected(1);
  report
      ->add_option("--out,--html", i.out,
                   "the page [the result file's name with .html, if nothing else is asked for]")
      ->type_name("FILE");
  add_table_options(*report, i);
  report->add_option("--svg", i.svg, "every chart as an SVG file into this folder")->type_name("DIR");
  report->add_option("--png", i.png, "every chart as a PNG file into this folder")->type_name("DIR");
  report
      ->add_option("--view", i.view,
                   "chart files of this view alone: what stands after # in the page's address")
      ->type_name("VIEW");
  report->add_option("--title", i.title, "title of the report")->type_name("TEXT");
}

Parsed mistake(const std::string& message) {
  return {.exit = lab::exit_code::kUsage, .text = "headwise: " + message + "\n"};
}

// The first thing that CLI11 did not know, with the nearest thing it does know.
std::string unknown(const CLI::App& command, const std::vector<std::string>& rest, bool is_main) {
  const std::string& word = rest.front();
  std::vector<std::string> known;
  if (word.starts_with("-")) {
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    }
  } else if (is_main) {
    for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; }))
      known.push_back(sub->get_name());
  }
  const std::vector<std::string_view> candidates(known.begin(), known.end());
  const std::string flag = word.substr(0, word.find('='));
  const char* kind = word.starts_with("-") ? "unknown flag"
                     : is_main             ? "unknown command"
                                           : "unexpected argument";
  return fmt::format("{} '{}'{}; see headwise {}--help", kind, flag, core::did_you_mean(flag, candidates),
                     is_main ? "" : command.get_name() + " ");
}

// --samples, --trials and --num-runs mean one thing, each of the latter two being a synonym of the first.
std::string said_twice(const std::vector<Synonyms>& all) {
  std::map<const CLI::Option*, const CLI::Option*> said;  // own -> whichever was said
  for (const auto& [own, foreign] : all) {
    if (own->count() > 0) said[own] = own;
  }
  for (const auto& [own, foreign] : all) {
    if (foreign->count() == 0) continue;
    const auto [found, is_first] = said.emplace(own, foreign);
    if (!is_first)
      return fmt::format("{} and {} say the same; give one", found->second->get_name(), foreign->get_name());
  }
  return "";
}

// As typed: what a shell needs quoted is quoted.
std::string command_line(int count, const char* const* arguments) {
  std::string line = "headwise";
  for (int i = 1; i < count; ++i) line += " " + lab::shell_word(arguments[i]);
  return line;
}

}  // namespace

Parsed parse_command_line(int count, const char* const* arguments) {
  CLI::App app{"Headwise: attention kernels, and the laboratory that compares them"};
  app.name("headwise");
  app.footer(kMainFooter);
  app.set_version_flag("--version", "headwise " + lab::version_line());
  app.require_subcommand(0, 1);
  app.allow_extras();
  app.get_formatter()->column_width(26);
  Commands commands;
  add_commands(app, commands);
  const auto subcommands = app.get_subcommands([](const CLI::App*) { return true; });
  for (CLI::App* sub : subcommands) sub->allow_extras();
  try {
    app.parse(count, arguments);
  } catch (const CLI::CallForHelp&) {
    return {.exit = 0, .text = app.help()};  // of the command that was asked, if one was
  } catch (const CLI::CallForVersion& version) {
    return {.exit = 0, .text = std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    for (const auto& [option, axis] : commands.axis_options) {
      if (option->count() > 1)
        return mistake(fmt::format("{}: given {} times; give a list: {} A,B", option->get_name(),
                                   option->count(), option->get_name()));
    }
    if (const std::size_t files = commands.result_file->count(); files > 1) {
      return mistake(
          fmt::format("report: takes one result file, got {}: rows of two runs are not comparable", files));
    }
    return mistake(error.what());
  }
  if (const auto rest = app.remaining(); !rest.empty()) return mistake(unknown(app, rest, true));
  if (app.get_subcommands().empty()) return {.exit = lab::exit_code::kUsage, .text = app.help()};
  const CLI::App* command = app.get_subcommands().front();
  if (const auto rest = command->remaining(); !rest.empty()) return mistake(unknown(*command, rest, false));
  if (const std::string twice = said_twice(commands.synonyms); !twice.empty()) return mistake(twice);
  commands.invocation.command = command->get_name();
  commands.invocation.command_line = command_line(count, arguments);
  for (const auto& [option, axis] : commands.axis_options) {
    if (option->count() == 0) continue;
    const std::string value = option->results().empty() ? "" : option->results().front();
    commands.invocation.words.emplace_back(
        axis->name, value.empty() && axis->type == lab::AxisType::boolean ? "1" : value);
  }
  return {.invocation = std::move(commands.invocation)};
}

}  // namespace headwise::cli
