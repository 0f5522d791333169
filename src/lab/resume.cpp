#include "lab/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <set>

#include "lab/estimate.h"

namespace headwise::lab {
namespace {

// Facts of the environment that decide what is measured. Load, free memory, clocks and the like come and go;
// where data lie is seen in the cases.
constexpr std::array kDecisive{"headwise_version",
                               "git_sha",
                               "git_dirty",
                               "program_hash",
                               "build_type",
                               "compiler",
                               "compiler_flags",
                               "absent_backends",
                               "architecture",
                               "os",
                               "kernel",
                               "libc",
                               "hypervisor",
                               "cpu",
                               "cpu_vendor",
                               "cpu_family",
                               "cpu_model",
                               "cpu_stepping",
                               "cpu_microcode",
                               "isa",
                               "instruction_sets",
                               "cpus_online",
                               "cpus_usable",
                               "cpu_affinity",
                               "cpu_quota",
                               "sockets",
                               "cores",
                               "smt",
                               "numa_nodes",
                               "l1d_bytes",
                               "l2_bytes",
                               "l3_bytes",
                               "scaling_governor",
                               "boost",
                               "transparent_huge_pages",
                               "page_bytes",
                               "HEADWISE_KERNEL",
                               "HEADWISE_MAX_ISA",
                               "OMP_NUM_THREADS",
                               "OMP_PROC_BIND",
                               "OMP_WAIT_POLICY",
                               "GOMP_SPINCOUNT"};

std::string value_of(const Environment& facts, std::string_view name) {
  for (const auto& [key, value] : facts) {
    if (key == name) return value.size() > 60 ? value.substr(0, 57) + "..." : value;
  }
  return "not recorded";
}

void compare(const Environment& then, const Environment& now, std::string_view name,
             std::vector<std::string>& found) {
  const auto full = [&](const Environment& facts) {
    return std::find_if(facts.begin(), facts.end(), [&](const auto& fact) { return fact.first == name; });
  };
  const auto a = full(then), b = full(now);
  if (a == then.end() && b == now.end()) return;
  if (a != then.end() && b != now.end() && a->second == b->second) return;
  found.push_back(fmt::format("{} was '{}', is '{}'", name, value_of(then, name), value_of(now, name)));
}

struct Source {
  std::string path;
  RunFile file;
  std::filesystem::file_time_type written;
  FileLock lock;
};

// Killed before its first line was whole: nothing in it can be used, and nothing is lost by leaving it.
bool without_run(const std::string& path) {
  Result<std::string> content = read_whole_file(path);
  return content && content->find('\n') == std::string::npos;
}

Result<std::vector<Source>> read_sources(const std::string& path, std::vector<std::string>& notes) {
  std::vector<Source> sources;
  std::vector<std::string> candidates = partial_files(path);
  std::error_code error;
  if (std::filesystem::exists(path, error)) candidates.insert(candidates.begin(), path);
  for (const std::string& candidate : candidates) {
    if (!std::filesystem::is_regular_file(candidate, error))
      return Status::invalid_argument(fmt::format("'{}' is no regular file; remove it", candidate));
    Result<FileLock> lock = FileLock::take(candidate);
    if (!lock) return lock.status();
    if (candidate != path && without_run(candidate)) {
      notes.push_back(fmt::format("'{}' holds no whole line and is left aside", candidate));
      continue;
    }
    Result<RunFile> file = read_rows(candidate);
    if (!file)
      return Status{file.status().code(),
                    fmt::format("{}; mend or remove the file", file.status().message())};
    notes.insert(notes.end(), file->warnings.begin(), file->warnings.end());
    sources.push_back({.path = candidate,
                       .file = *std::move(file),
                       .written = std::filesystem::last_write_time(candidate, error),
                       .lock = *std::move(lock)});
  }
  return sources;
}

// The run that wrote last, of those that have rows; its files alone stay.
void keep_latest_run(std::vector<Source>& sources, std::vector<std::string>& notes) {
  const auto latest = std::max_element(sources.begin(), sources.end(), [](const Source& a, const Source& b) {
    return std::pair(!a.file.rows.empty(), a.written) < std::pair(!b.file.rows.empty(), b.written);
  });
  const std::string run = latest->file.run.run;
  for (const Source& source : sources) {
    if (source.file.run.run == run) continue;
    notes.push_back(fmt::format("'{}' is of another run ({}, {} rows) and is left aside", source.path,
                                source.file.run.run, source.file.rows.size()));
  }
  std::erase_if(sources, [&](const Source& source) { return source.file.run.run != run; });
  std::stable_sort(sources.begin(), sources.end(),
                   [](const Source& a, const Source& b) { return a.written < b.written; });
}

using Contenders = std::vector<std::string>;

std::string row_key(std::string_view id, std::string_view contender) {
  return fmt::format("{}\n{}", id, contender);
}

// Takes the rows of `contenders` in one case out of a file: all of them, or none.
std::vector<Row> take_case(const std::string& id, const Contenders& contenders,
                           std::multimap<std::string, const Row*>& rows) {
  std::vector<std::multimap<std::string, const Row*>::iterator> found;
  for (const std::string& contender : contenders) {
    auto [at, end] = rows.equal_range(row_key(id, contender));
    while (at != end && std::find(found.begin(), found.end(), at) != found.end()) ++at;
    if (at == end) return {};
    found.push_back(at);
  }
  std::vector<Row> taken;
  for (const auto at : found) {
    taken.push_back(*at->second);
    rows.erase(at);
  }
  return taken;
}

// A file that holds more than is asked for is another sweep's.
Status check_asked_for(const Source& source, const std::map<std::string, std::set<std::string>>& asked) {
  for (const Row& row : source.file.rows) {
    const auto found = asked.find(row.case_id);
    const bool known = found != asked.end();
    if (known && found->second.contains(row.contender)) continue;
    return Status::invalid_argument(fmt::format(
        "--resume: '{}' has {} that this command does not ask for: '{}'; repeat the command that made the "
        "file ({}), or name another --out",
        source.path, known ? "a contender" : "a case",
        known ? fmt::format("{}' in '{}", row.contender, row.case_id) : row.case_id,
        source.file.run.command));
  }
  return {};
}

}  // namespace

std::size_t Unfinished::kept_cases() const {
  return static_cast<std::size_t>(
      std::count_if(kept.begin(), kept.end(), [](const std::vector<Row>& rows) { return !rows.empty(); }));
}

std::vector<std::string> differences(const Run& then, const Run& now) {
  std::vector<std::string> found;
  for (const std::string_view name : kDecisive) compare(then.environment, now.environment, name, found);
  std::set<std::string> others;  // every device, and every measuring option
  for (const Run* run : {&then, &now}) {
    for (const auto& [name, ignored] : run->environment) {
      if (name.starts_with("device_")) others.insert(name);
    }
  }
  for (const std::string& name : others) compare(then.environment, now.environment, name, found);
  others.clear();
  for (const Run* run : {&then, &now}) {
    for (const auto& [name, ignored] : run->options) others.insert(name);
  }
  for (const std::string& name : others) compare(then.options, now.options, name, found);
  return found;
}

Result<Unfinished> find_unfinished(const std::string& path, const std::vector<Case>& cases, const Run& now) {
  Unfinished left;
  Result<std::vector<Source>> sources = read_sources(path, left.notes);
  if (!sources) {
    return Status{sources.status().code(),
                  fmt::format("--resume: {}, or name another --out", sources.status().message())};
  }
  left.run = now;
  left.kept.resize(cases.size());
  if (sources->empty()) return left;
  keep_latest_run(*sources, left.notes);
  left.run = sources->back().file.run;
  if (const std::vector<std::string> differing = differences(left.run, now); !differing.empty()) {
    return Status::invalid_argument(fmt::format(
        "--resume: '{}' was measured otherwise: {}; rows of one file are comparable only where these are the "
        "same: restore them, or name another --out",
        sources->back().path, fmt::join(differing, "; ")));
  }
  std::vector<Contenders> contenders;
  std::map<std::string, std::set<std::string>> asked;
  for (const Case& one : cases) {
    Result<std::vector<Contender>> of_case = contenders_of(one);
    if (!of_case) return of_case.status();
    contenders.emplace_back();
    for (const Contender& contender : *of_case) contenders.back().push_back(contender.id);
    asked[case_id(one)].insert(contenders.back().begin(), contenders.back().end());
  }
  std::set<std::string> begun;
  for (Source& source : *sources) {
    if (Status status = check_asked_for(source, asked); !status.ok()) return status;
    std::multimap<std::string, const Row*> rows;  // equal keys stay in the order of the file
    for (const Row& row : source.file.rows) begun.insert(row.case_id);
    for (const Row& row : source.file.rows) rows.emplace(row_key(row.case_id, row.contender), &row);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      if (left.kept[i].empty()) left.kept[i] = take_case(case_id(cases[i]), contenders[i], rows);
    }
    left.files.push_back(source.path);
    left.locks.push_back(std::move(source.lock));
  }
  for (std::size_t i = 0; i < cases.size(); ++i)
    left.cut += left.kept[i].empty() && begun.contains(case_id(cases[i])) ? 1 : 0;
  if (left.kept_cases() == 0) left.run.peaks.clear();  // perhaps not all: measured again
  return left;
}

}  // namespace headwise::lab
